#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <random>

#include "pipelines/both_strands.hpp"
#include "support/temporary_directory.hpp"

namespace longstrand::pipelines {
namespace {

std::vector<std::uint8_t> random_tokens(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::uint8_t> tokens(count);
  std::ranges::generate(tokens, [&] { return static_cast<std::uint8_t>(io::kA + random() % 5); });
  return tokens;
}

TEST(TokenSpool, GivesBackWhatWentInOnBothSidesOfItsMemory) {
  const std::vector<std::uint8_t> tokens = random_tokens(1000, 1);
  for (const std::size_t piece : {1, 99, 1000}) {
    TokenSpool spool(100);
    for (int round = 0; round < 2; ++round) {  // the second one finds the file of the first
      spool.clear();
      for (std::size_t i = 0; i < tokens.size(); i += piece) {
        spool.append(std::span(tokens).subspan(i, std::min(piece, tokens.size() - i)));
      }
      ASSERT_EQ(spool.size(), 1000);
      for (const std::size_t begin : {0, 50, 99, 100, 101, 700}) {
        std::vector<std::uint8_t> back(300);
        spool.read(static_cast<std::int64_t>(begin), back);
        EXPECT_TRUE(std::equal(back.begin(), back.end(), tokens.begin() + begin))
            << "piece " << piece << " at " << begin;
      }
    }
  }
}

class BothStrandsTest : public testing::TestWithParam<std::int64_t> {
 protected:
  void SetUp() override { std::ofstream(path_) << ">one\nACGTTTN\n>empty\n>two\nAAACCRGT\n"; }
  test::TemporaryDirectory directory_;  // of its own: tests run side by side
  std::string path_ = directory_ / "both_strands.fa";
};

TEST_P(BothStrandsTest, EveryRecordIsFollowedByItsReverseComplement) {
  BatchReader reader(io::ChunkStream({path_}, {}, {.chunk_tokens = GetParam()}));
  BothStrands strands(reader);
  TokenBatch batch;
  std::vector<std::string> seen;
  std::string bases;
  while (strands.next(batch)) {
    if (batch.starts[0]) bases.clear();
    EXPECT_EQ(origin_of(batch).offset[0], std::ssize(bases));
    bases += io::Alphabet::bases(std::span(batch.tokens).first(batch.valid[0]));
    EXPECT_TRUE(std::all_of(batch.tokens.begin() + batch.valid[0], batch.tokens.end(),
                            [](std::uint8_t token) { return token == io::kPad; }));
    if (batch.ends[0]) {
      const io::RecordInfo& record = origin_of(batch).records[0];
      EXPECT_EQ(record.length, std::ssize(bases));
      seen.push_back(record.name + record.strand + bases);
    }
  }
  EXPECT_EQ(seen, (std::vector<std::string>{"one+ACGTTTN", "one-NAAACGT", "empty+", "empty-", "two+AAACCNGT",
                                            "two-ACNGGTTT"}));
}

TEST_P(BothStrandsTest, OfBundlesTheReverseComplementIsInTheNextLane) {
  BatchReader reader(io::ChunkStream({path_}, {}, {.chunk_tokens = GetParam(), .bundle = 3}));
  BothStrands strands(reader);
  std::vector<std::string> seen;
  std::string bases;
  for (TokenBatch batch; strands.next(batch);) {
    ASSERT_EQ(std::ssize(batch.tokens), batch.lanes * batch.length);
    for (std::int64_t lane = 0; lane < batch.lanes; ++lane) {
      if (batch.starts[lane]) bases.clear();
      const auto row = std::span(batch.tokens).subspan(lane * batch.length, batch.length);
      bases += io::Alphabet::bases(row.first(batch.valid[lane]));
      const io::RecordInfo& record = origin_of(batch).records[lane];
      if (batch.ends[lane]) seen.push_back(record.name + record.strand + bases);
    }
  }
  EXPECT_EQ(seen, (std::vector<std::string>{"one+ACGTTTN", "one-NAAACGT", "empty+", "empty-", "two+AAACCNGT",
                                            "two-ACNGGTTT"}));
}

INSTANTIATE_TEST_SUITE_P(ChunkTokens, BothStrandsTest, testing::Values(1, 3, 7, 8, 20, 100));

}  // namespace
}  // namespace longstrand::pipelines
