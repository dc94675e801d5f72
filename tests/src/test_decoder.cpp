// Decoding token by token: the same logits as Inference over the whole sequence, lanes apart from one
// another.
#include <gtest/gtest.h>

#include "kernels/linear.hpp"
#include "model_support.hpp"
#include "src/decoder.hpp"
#include "support/random.hpp"
#include "support/tolerances.hpp"

namespace longstrand::test {
namespace {

constexpr std::int64_t kStates = 20;  // the GPU takes states in groups of 16
using Logits = std::vector<float>;    // [L, V]

/// Appends to logits[b] what lane b yields.
void step(Decoder& decoder, const Tokens& tokens, std::vector<Logits>& logits) {
  const View<const float, 2> of_step = decoder.step(tokens);
  logits.resize(tokens.size());
  for (std::size_t b = 0; b < tokens.size(); ++b) {
    logits[b].insert(logits[b].end(), of_step.at(b), of_step.at(b) + decoder.vocabulary());
  }
}

/// Sequences of one length, a lane each.
std::vector<Logits> decode(Decoder& decoder, const std::vector<Tokens>& sequences) {
  std::vector<Logits> logits;
  for (std::size_t t = 0; t < sequences.front().size(); ++t) {
    Tokens tokens;
    for (const Tokens& sequence : sequences) tokens.push_back(sequence[t]);
    step(decoder, tokens, logits);
  }
  return logits;
}

std::vector<Logits> in_one_pass(const Model& model, const std::vector<Tokens>& sequences,
                                Precision precision) {
  return run_lanes(model, sequences, std::ssize(sequences.front()), {.precision = precision},
                   {.readout = Readout::tokens, .layer = InferenceOptions::kLogits})
      .values;
}

LONGSTRAND_DEVICE_TEST(Decoder, TokenByTokenEqualsOnePass) {
  for (const std::int64_t d_state : {16, 20}) {
    const Model model = small_model(d_state);
    // Longer than a segment of the scan.
    const std::vector<Tokens> sequences = {random_dna(150, 1), random_dna(150, 2), random_dna(150, 3)};
    Decoder decoder(model, on_device(), std::ssize(sequences));
    EXPECT_EQ(decoder.lanes(), 3);
    const std::vector<Logits> expected = in_one_pass(model, sequences, Precision::fp32);
    const std::vector<Logits> got = decode(decoder, sequences);
    for (std::size_t b = 0; b < sequences.size(); ++b) {
      EXPECT_LT(relative_error(got[b], expected[b]), tolerance::kChunkForward.relative)
          << "lane " << b << ", d_state " << d_state;
    }
  }
}

LONGSTRAND_DEVICE_TEST(Decoder, InBFloat16TokenByTokenIsCloseToOnePass) {
  if (!has_bfloat16_products(device_under_test())) GTEST_SKIP() << "no products in bfloat16 here";
  const Model model = small_model(kStates);
  const std::vector<Tokens> sequences = {random_dna(100, 1), random_dna(100, 2)};
  Decoder decoder(model, on_device({.precision = Precision::bf16}), 2);
  const std::vector<Logits> expected = in_one_pass(model, sequences, Precision::bf16);
  const std::vector<Logits> got = decode(decoder, sequences);
  for (std::size_t b = 0; b < sequences.size(); ++b) {
    EXPECT_LT(relative_error(got[b], expected[b]), tolerance::kGoldenLogitsBFloat16.relative) << "lane " << b;
  }
}

LONGSTRAND_DEVICE_TEST(Decoder, LanesDoNotTouchOneAnother) {
  const Model model = small_model(kStates);
  const Tokens one = random_dna(60, 1), another = random_dna(60, 2), third = random_dna(60, 3);
  Decoder first(model, on_device(), 2), second(model, on_device(), 2);
  const std::vector<Logits> beside_another = decode(first, {one, another});
  const std::vector<Logits> beside_third = decode(second, {one, third});
  EXPECT_EQ(beside_another[0], beside_third[0]);
  EXPECT_NE(beside_another[1], beside_third[1]);
}

LONGSTRAND_DEVICE_TEST(Decoder, AResetLaneStartsAfreshAndTheOtherGoesOn) {
  const Model model = small_model(kStates);
  const Tokens one = random_dna(40, 1), whole = random_dna(80, 2), next = random_dna(40, 3);
  const Tokens begin(whole.begin(), whole.begin() + 40), rest(whole.begin() + 40, whole.end());
  Decoder decoder(model, on_device(), 2), fresh(model, on_device(), 2);
  decode(decoder, {one, begin});
  decoder.reset(0);
  const std::vector<Logits> got = decode(decoder, {next, rest});
  EXPECT_EQ(got[0], decode(fresh, {next, rest})[0]);
  const Logits expected = in_one_pass(model, {whole}, Precision::fp32)[0];
  EXPECT_LT(relative_error(got[1], std::span(expected).last(got[1].size())),
            tolerance::kChunkForward.relative);
}

LONGSTRAND_DEVICE_TEST(Decoder, ASavedStateGoesOnInAnyLane) {
  const Model model = small_model(kStates);
  const Tokens begin = random_dna(40, 1), other = random_dna(40, 2), rest = random_dna(40, 3);
  Decoder decoder(model, on_device(), 2), later(model, on_device(), 2);
  decode(decoder, {begin, other});
  const std::vector<float> state = decoder.save_state(0);
  later.load_state(1, state);
  EXPECT_EQ(later.save_state(1), state);
  const std::vector<float> empty(state.size());
  EXPECT_EQ(later.save_state(0), empty);
  EXPECT_LT(relative_error(decode(later, {other, rest})[1], decode(decoder, {rest, other})[0]),
            tolerance::kChunkForward.relative);
}

LONGSTRAND_DEVICE_TEST(Decoder, RefusesWhatItCannotDo) {
  const Model model = small_model(kStates);
  EXPECT_THROW(Decoder(model, on_device(), 0), std::invalid_argument);
  Decoder decoder(model, on_device(), 2);
  EXPECT_THROW(decoder.step(Tokens{7}), std::invalid_argument);
  EXPECT_THROW(decoder.step(Tokens{7, 16}), std::invalid_argument);
  EXPECT_THROW(decoder.reset(2), std::invalid_argument);
  EXPECT_THROW(decoder.reset(-1), std::invalid_argument);
  EXPECT_THROW(decoder.load_state(0, std::vector<float>(3)), std::invalid_argument);
}

}  // namespace
}  // namespace longstrand::test
