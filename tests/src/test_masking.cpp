#include <gtest/gtest.h>

#include <map>

#include "model_support.hpp"
#include "src/masking.hpp"

namespace longstrand::test {
namespace {

constexpr std::int64_t kLength = 200000;

struct Reading {
  Tokens seen, targets;
};

Reading read_all(const TrainingSequence& sequence, std::int64_t piece) {
  Reading all{.seen = Tokens(sequence.length), .targets = Tokens(sequence.length)};
  for (std::int64_t begin = 0; begin < sequence.length; begin += piece) {
    const auto count = static_cast<std::size_t>(std::min(piece, sequence.length - begin));
    sequence.read(begin, std::span(all.seen).subspan(begin, count));
    sequence.read_targets(begin, std::span(all.targets).subspan(begin, count));
  }
  return all;
}

/// With some [UNK] and N among its bases.
Tokens truth_with_gaps() {
  Tokens truth = random_dna(kLength, 1);
  for (std::size_t i = 0; i < truth.size(); i += 10) truth[i] = i % 20 == 0 ? 11 : 6;
  return truth;
}

TEST(Masking, AsksForBasesOnlyAndInTheSharesPromised) {
  const Tokens truth = truth_with_gaps();
  const Reading reading = read_all(masked(sequence_of(truth), {}, 7), kLength);
  std::map<std::string, double> count;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    const bool base = kPredictedTokens.contains(truth[i]);
    if (base) ++count["base"];
    if (reading.targets[i] == kNoTargetToken) {
      ASSERT_EQ(reading.seen[i], truth[i]) << "position " << i;
      continue;
    }
    ASSERT_TRUE(base) << "position " << i;
    ASSERT_EQ(reading.targets[i], truth[i]) << "position " << i;
    ++count["target"];
    ++count[reading.seen[i] == kMaskToken ? "masked" : reading.seen[i] == truth[i] ? "same" : "other"];
    ASSERT_TRUE(reading.seen[i] == kMaskToken || kPredictedTokens.contains(reading.seen[i]));
  }
  EXPECT_NEAR(count["target"] / count["base"], 0.15, 0.005);
  EXPECT_NEAR(count["masked"] / count["target"], 0.8, 0.01);
  EXPECT_NEAR(count["other"] / count["target"], 0.1 * 3 / 4,
              0.01);  // the fourth is the one that stands there
}

TEST(Masking, ReadsTheSameInAnyPiecesAndAnewWithAnotherSeed) {
  const Tokens truth = truth_with_gaps();
  const Reading whole = read_all(masked(sequence_of(truth), {}, 7), kLength);
  const Reading pieces = read_all(masked(sequence_of(truth), {}, 7), 977);
  EXPECT_EQ(pieces.seen, whole.seen);
  EXPECT_EQ(pieces.targets, whole.targets);
  EXPECT_NE(read_all(masked(sequence_of(truth), {}, 8), kLength).targets, whole.targets);
}

TEST(Masking, TheRuleMayMaskAllOrNone) {
  const Tokens truth(100, 9);
  const Reading all = read_all(masked(sequence_of(truth), {.share = 1, .masked = 1, .replaced = 0}, 7), 100);
  EXPECT_EQ(all.seen, Tokens(100, kMaskToken));
  EXPECT_EQ(all.targets, truth);
  const Reading none = read_all(masked(sequence_of(truth), {.share = 0}, 7), 100);
  EXPECT_EQ(none.seen, truth);
  EXPECT_EQ(none.targets, Tokens(100, kNoTargetToken));
}

}  // namespace
}  // namespace longstrand::test
