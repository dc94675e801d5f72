#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <string_view>

#include "io/alphabet.hpp"
#include "pipelines/kmer_centroids.hpp"

namespace longstrand::pipelines {
namespace {

std::vector<std::uint8_t> tokens_of(std::string_view bases) {
  std::vector<std::uint8_t> tokens(bases.size());
  EXPECT_FALSE(io::Alphabet().tokenize(bases, tokens, {}));
  return tokens;
}

std::vector<std::uint8_t> random_tokens(std::int64_t length, double gc, std::mt19937_64& random) {
  std::discrete_distribution<int> base({(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2});
  std::vector<std::uint8_t> tokens(length);
  std::ranges::generate(tokens, [&] { return static_cast<std::uint8_t>(io::kA + base(random)); });
  return tokens;
}

std::vector<double> count_kmers(std::span<const std::uint8_t> tokens, int k) {
  KmerCounter counter(k);
  counter.add(tokens);
  return {counter.counts().begin(), counter.counts().end()};
}

TEST(KmerCounter, CountsEveryOverlappingKmer) {
  const std::vector<double> counts = count_kmers(tokens_of("ACACA"), 2);
  EXPECT_EQ(counts[0b0001], 2);  // AC
  EXPECT_EQ(counts[0b0100], 2);  // CA
  EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), 0.0), 4);
}

TEST(KmerCounter, LeavesOutKmersWithAnyOtherBase) {
  const std::vector<double> counts = count_kmers(tokens_of("ACGNACG"), 3);
  EXPECT_EQ(counts[0b000110], 2);  // ACG
  EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), 0.0), 2);
}

TEST(KmerCounter, ShorterThanKHasNone) {
  for (const double count : count_kmers(tokens_of("ACGT"), 5)) EXPECT_EQ(count, 0);
}

TEST(KmerCounter, PiecesMakeNoDifference) {
  std::mt19937_64 random(2);
  std::vector<std::uint8_t> tokens = random_tokens(500, 0.5, random);
  tokens[100] = io::kN;
  const std::vector<double> expected = count_kmers(tokens, 4);
  for (const std::size_t piece : {1, 3, 7, 499}) {
    KmerCounter counter(4);
    counter.add(tokens);
    counter.reset();
    for (std::size_t i = 0; i < tokens.size(); i += piece) {
      counter.add(std::span(tokens).subspan(i, std::min(piece, tokens.size() - i)));
    }
    EXPECT_TRUE(std::ranges::equal(counter.counts(), expected)) << "piece " << piece;
  }
}

class KmerCentroidsTest : public testing::TestWithParam<Similarity> {};

TEST_P(KmerCentroidsTest, TellsCompositionsApartWhateverTheLength) {
  std::mt19937_64 random(1);
  KmerCentroids centroids(2, 3, GetParam());
  for (int i = 0; i < 10; ++i) {
    centroids.add(0, count_kmers(random_tokens(2000, 0.3, random), 3));
    centroids.add(1, count_kmers(random_tokens(500, 0.7, random), 3));
  }
  for (const std::int64_t length : {300, 3000}) {
    EXPECT_EQ(centroids.predict(count_kmers(random_tokens(length, 0.3, random), 3)), 0);
    EXPECT_EQ(centroids.predict(count_kmers(random_tokens(length, 0.7, random), 3)), 1);
  }
}

TEST_P(KmerCentroidsTest, AClassWithoutSamplesIsNeverPredicted) {
  KmerCentroids centroids(2, 1, GetParam());
  centroids.add(1, std::vector<double>{1, 0, 0, 0});
  centroids.add(0, std::vector<double>{0, 0, 0, 0});  // nothing but N: no sample
  EXPECT_EQ(centroids.predict(std::vector<double>{0, 1, 1, 1}), 1);
}

INSTANTIATE_TEST_SUITE_P(Both, KmerCentroidsTest, testing::Values(Similarity::euclidean, Similarity::cosine),
                         [](const auto& instance) { return std::string(similarity_name(instance.param)); });

}  // namespace
}  // namespace longstrand::pipelines
