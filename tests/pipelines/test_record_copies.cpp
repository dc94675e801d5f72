#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <random>

#include "pipelines/record_copies.hpp"
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

class RecordCopiesTest : public testing::TestWithParam<std::int64_t> {
 protected:
  void SetUp() override { std::ofstream(path_) << ">one\nACGTTTN\n>empty\n>two\nAAACCRGT\n"; }
  test::TemporaryDirectory directory_;  // of its own: tests run side by side
  std::string path_ = directory_ / "both_strands.fa";
};

TEST_P(RecordCopiesTest, EveryRecordIsFollowedByItsReverseComplement) {
  BatchReader reader(io::ChunkStream({path_}, {}, {.chunk_tokens = GetParam()}));
  RecordCopies strands(reader, {.both_strands = true});
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

TEST_P(RecordCopiesTest, OfBundlesTheReverseComplementIsInTheNextLane) {
  BatchReader reader(io::ChunkStream({path_}, {}, {.chunk_tokens = GetParam(), .bundle = 3}));
  RecordCopies strands(reader, {.both_strands = true});
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

// Of every copy, "what the model sees" / "what it is asked for", with - for no target.
std::vector<std::string> masked_copies(const std::string& path, const CopyRule& rule,
                                       const io::ChunkStreamOptions& chunks) {
  BatchReader reader(io::ChunkStream({path}, {}, chunks));
  RecordCopies copies(reader, rule);
  std::vector<std::string> seen;
  std::string bases, targets;
  for (TokenBatch batch; copies.next(batch);) {
    EXPECT_EQ(batch.targets.size(), batch.tokens.size());
    for (std::int64_t lane = 0; lane < batch.lanes; ++lane) {
      if (batch.starts[lane]) bases = targets = "";
      for (std::int64_t i = lane * batch.length; i < lane * batch.length + batch.valid[lane]; ++i) {
        const auto letter = [](std::uint8_t token) { return io::Alphabet::bases(std::span(&token, 1)); };
        bases += batch.tokens[i] == io::kMask ? "_" : letter(batch.tokens[i]);
        targets += batch.targets[i] == kNoTargetToken ? "-" : letter(batch.targets[i]);
      }
      if (batch.ends[lane]) seen.push_back(bases + "/" + targets);
    }
  }
  return seen;
}

TEST_P(RecordCopiesTest, EveryBaseIsMaskedInOneRound) {
  const std::vector<std::string> expected = {
      "_CG_TTN/A--T---",   "A_GT_TN/-C--T--",   "AC_TT_N/--G--T-",  "/", "/", "/",
      "_AA_CN_T/A--C--G-", "A_AC_NG_/-A--C--T", "AA_CCNGT/--A-----"};
  for (const std::int64_t bundle : {1, 3}) {
    EXPECT_EQ(masked_copies(path_, {.mask_rounds = 3}, {.chunk_tokens = GetParam(), .bundle = bundle}),
              expected);
    const auto whole =
        masked_copies(path_, {.mask_rounds = 1}, {.chunk_tokens = GetParam(), .bundle = bundle});
    EXPECT_EQ(whole, (std::vector<std::string>{"______N/ACGTTT-", "/", "_____N__/AAACC-GT"}));
  }
}

TEST_P(RecordCopiesTest, BothStrandsHideTheSameBasesTogether) {
  const std::string kBases = "ACGT";
  for (const std::int64_t rounds : {2, 3, 5, 7}) {
    const auto seen =
        masked_copies(path_, {.both_strands = true, .mask_rounds = rounds}, {.chunk_tokens = GetParam()});
    ASSERT_EQ(std::ssize(seen), 3 * 2 * rounds);
    for (auto copy = seen.begin(); copy != seen.end(); copy += 2 * rounds) {
      std::vector<std::string> mirrored(copy + rounds, copy + 2 * rounds);
      for (std::string& text : mirrored) {
        const auto end_of_bases = text.begin() + static_cast<std::ptrdiff_t>(text.size() / 2);
        std::reverse(text.begin(), end_of_bases);
        std::reverse(end_of_bases + 1, text.end());
        for (char& base : text) {
          const std::size_t index = kBases.find(base);
          if (index != std::string::npos) base = kBases[kBases.size() - 1 - index];
        }
      }
      std::ranges::sort(mirrored);
      std::vector<std::string> forward(copy, copy + rounds);
      std::ranges::sort(forward);
      EXPECT_EQ(mirrored, forward);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(ChunkTokens, RecordCopiesTest, testing::Values(1, 3, 7, 8, 20, 100));

}  // namespace
}  // namespace longstrand::pipelines
