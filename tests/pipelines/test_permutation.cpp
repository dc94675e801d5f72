#include <gtest/gtest.h>

#include <cstdlib>
#include <vector>

#include "pipelines/permutation.hpp"
#include "src/seeded_hash.hpp"

namespace longstrand::pipelines {
namespace {

std::vector<std::int64_t> images(std::int64_t size, std::uint64_t seed) {
  const Permutation permutation(size, seed);
  std::vector<std::int64_t> result;
  for (std::int64_t i = 0; i < size; ++i) result.push_back(permutation(i));
  return result;
}

// Sizes around powers of four, where the number of bits changes, and a prime.
TEST(Permutation, VisitsEveryIndexOnce) {
  for (const std::int64_t size : {1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 1000, 4096, 4099}) {
    for (const std::uint64_t seed : {0U, 1U, 77U}) {
      std::vector<int> visits(static_cast<std::size_t>(size));
      for (const auto image : images(size, seed)) {
        ASSERT_GE(image, 0);
        ASSERT_LT(image, size);
        visits[static_cast<std::size_t>(image)] += 1;
      }
      EXPECT_EQ(visits, std::vector<int>(visits.size(), 1)) << "size " << size << " seed " << seed;
    }
  }
}

TEST(Permutation, IsGivenByItsSeed) {
  EXPECT_EQ(images(1000, 5), images(1000, 5));
  EXPECT_NE(images(1000, 5), images(1000, 6));
}

// Neighbours must not stay neighbours: in a random order about 2 of 4096 do.
TEST(Permutation, ScattersNeighbours) {
  const auto order = images(4096, 9);
  int neighbours = 0;
  for (std::size_t i = 1; i < order.size(); ++i) neighbours += std::abs(order[i] - order[i - 1]) == 1 ? 1 : 0;
  EXPECT_LE(neighbours, 12);
}

TEST(Permutation, ReachesBeyond32Bits) {
  const std::int64_t size = (std::int64_t{1} << 40) + 12345;
  const Permutation permutation(size, 3);
  bool beyond = false;
  for (std::int64_t i = 0; i < 100; ++i) {
    const auto image = permutation(i);
    ASSERT_TRUE(image >= 0 && image < size);
    beyond = beyond || image > (std::int64_t{1} << 32);
  }
  EXPECT_TRUE(beyond);
}

TEST(SeededHash, UnitIntervalIsUniform) {
  double sum = 0;
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    const double draw = unit_interval(seeded_hash(1, i));
    ASSERT_GE(draw, 0);
    ASSERT_LT(draw, 1);
    sum += draw;
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 0.01);  // five standard deviations of the mean
}

}  // namespace
}  // namespace longstrand::pipelines
