#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

#include "pipelines/window_layout.hpp"

namespace longstrand::pipelines {
namespace {

// Windows overlap, touch and leave gaps; records are shorter and much longer than a window; parts are empty
// or not.
TEST(WindowLayout, NoBaseIsInTwoParts) {
  std::mt19937 random(20260101);
  const auto up_to = [&](std::int64_t most) {
    return std::uniform_int_distribution<std::int64_t>(0, most)(random);
  };
  for (int trial = 0; trial < 2000; ++trial) {
    const std::int64_t length = up_to(trial % 2 == 0 ? 300 : 5000);
    const WindowRule rule{.window = up_to(200), .stride = up_to(250)};
    const SplitRule split{
        .valid = 0.1 * static_cast<double>(up_to(3)), .test = 0.1 * static_cast<double>(up_to(5)), .seed = 4};
    std::vector<std::optional<Split>> part_of(static_cast<std::size_t>(length));
    for (const auto& region : split_record("record" + std::to_string(trial), length, rule, split)) {
      for (const auto& place : windows_of(region, rule)) {
        ASSERT_TRUE(0 <= place.begin && place.begin < place.end && place.end <= length);
        for (auto i = place.begin; i < place.end; ++i) {
          auto& part = part_of[static_cast<std::size_t>(i)];
          ASSERT_TRUE(!part || *part == region.split) << "trial " << trial << " base " << i;
          part = region.split;
        }
      }
    }
  }
}

TEST(WindowLayout, CutsAGenomeByCoordinates) {
  const auto regions = split_record("chr", 1'000'000, {.window = 4096}, {.valid = 0.1, .test = 0.2});
  ASSERT_EQ(regions.size(), 3U);
  EXPECT_EQ(regions[0].begin, 0);
  EXPECT_EQ(regions[0].end, 700'000);
  EXPECT_EQ(regions[1].end, 800'000);
  EXPECT_EQ(regions[2].end, 1'000'000);
  EXPECT_EQ(regions[0].split, Split::train);
  EXPECT_EQ(regions[1].split, Split::valid);
  EXPECT_EQ(regions[2].split, Split::test);
}

TEST(WindowLayout, DrawsShortRecordsAsAWholeInTheAskedShares) {
  std::map<Split, int> counts;
  for (int i = 0; i < 10000; ++i) {
    const auto regions =
        split_record("read" + std::to_string(i), 150, {.window = 4096}, {.valid = 0.1, .test = 0.2});
    ASSERT_EQ(regions.size(), 1U);
    EXPECT_EQ(regions[0].end - regions[0].begin, 150);
    counts[regions[0].split] += 1;
  }
  EXPECT_NEAR(counts[Split::test], 2000, 200);  // five standard deviations
  EXPECT_NEAR(counts[Split::valid], 1000, 150);
}

TEST(WindowLayout, MatesOfAPairShareAPart) {
  const SplitRule split{.valid = 0.3, .test = 0.3};
  for (int i = 0; i < 200; ++i) {
    const auto name = "pair" + std::to_string(i);
    const auto part = [&](const std::string& record) {
      return split_record(record, 150, {.window = 0}, split)[0].split;
    };
    EXPECT_EQ(part(name + "/1"), part(name + "/2"));
    EXPECT_EQ(part(name + "/1"), part(name));
  }
}

TEST(WindowLayout, ShortTailsAreLeftOutUnlessTheyAreAll) {
  const auto count = [](std::int64_t length) {
    return windows_of({0, length, Split::train}, {.window = 100}).size();
  };
  EXPECT_EQ(count(30), 1U);
  EXPECT_EQ(count(149), 1U);
  EXPECT_EQ(count(150), 2U);
  EXPECT_EQ(count(200), 2U);
  EXPECT_EQ(count(0), 0U);
}

TEST(WindowLayout, WholeRecordsAreOneWindow) {
  const auto places = windows_of({0, 123456789, Split::train}, {.window = 0});
  ASSERT_EQ(places.size(), 1U);
  EXPECT_EQ(places[0].end, 123456789);
}

}  // namespace
}  // namespace longstrand::pipelines
