// Sequences side by side: as many as fit, little padding, and the same gradients as one after the other.
#include <gtest/gtest.h>

#include "model_support.hpp"
#include "src/bundles.hpp"
#include "support/random.hpp"
#include "support/tolerances.hpp"

namespace longstrand::test {
namespace {

std::vector<TrainingSequence> sequences_of_lengths(std::span<const std::int64_t> lengths) {
  std::vector<TrainingSequence> sequences;
  for (const std::int64_t length : lengths) sequences.push_back({.length = length, .read = {}});
  return sequences;
}

TEST(Bundles, OneLaneKeepsTheOrderAndLeavesOutTheEmpty) {
  const auto batch = sequences_of_lengths(std::array<std::int64_t, 4>{300, 0, 10, 2000});
  const std::vector<Bundle> bundles =
      bundle_up(batch, {.lanes = 1, .whole_tokens = 500, .chunk_tokens = 128});
  ASSERT_EQ(bundles.size(), 3U);
  EXPECT_EQ(bundles[0].sequences.front(), &batch[0]);
  EXPECT_EQ(bundles[0].chunks(), 1);
  EXPECT_EQ(bundles[1].sequences.front(), &batch[2]);
  EXPECT_EQ(bundles[2].chunk_tokens, 128);
  EXPECT_EQ(bundles[2].chunks(), 16);
}

TEST(Bundles, ManyLanesHoldNoMoreTokensThanAllowedAndCutOnlyWhatIsAlone) {
  Random random(3);
  std::vector<std::int64_t> lengths;
  for (int i = 0; i < 200; ++i) lengths.push_back(random.integer(0, 1500));
  const auto batch = sequences_of_lengths(lengths);
  const BundleLimits limits{.lanes = 20, .whole_tokens = 1000, .chunk_tokens = 400};
  std::int64_t lanes = 0;
  for (const Bundle& bundle : bundle_up(batch, limits)) {
    EXPECT_EQ(bundle.first_lane, lanes);
    EXPECT_LE(bundle.lanes(), limits.lanes);
    if (bundle.lanes() > 1) {
      EXPECT_LE(bundle.lanes() * bundle.longest, limits.whole_tokens);
    }
    EXPECT_EQ(bundle.chunks() > 1, bundle.longest > limits.whole_tokens);
    for (const TrainingSequence* sequence : bundle.sequences) EXPECT_LE(sequence->length, bundle.longest);
    lanes += bundle.lanes();
  }
  EXPECT_EQ(lanes, std::ranges::count_if(lengths, [](std::int64_t length) { return length > 0; }));
}

TEST(Bundles, LongOnesRunByLayersAsFarAsThereIsRoom) {
  const auto batch = sequences_of_lengths(std::array<std::int64_t, 4>{500, 501, 2000, 2001});
  const std::vector<Bundle> bundles = bundle_up(batch, {.lanes = 1,
                                                        .whole_tokens = 500,
                                                        .chunk_tokens = 128,
                                                        .by_layers_tokens = 2000,
                                                        .by_layers_chunk_tokens = 1024});
  ASSERT_EQ(bundles.size(), 4U);
  const std::array<bool, 4> by_layers = {false, true, true, false};
  const std::array<std::int64_t, 4> chunks = {1, 1, 2, 16};
  for (std::size_t i = 0; i < bundles.size(); ++i) {
    EXPECT_EQ(bundles[i].by_layers, by_layers[i]) << i;
    EXPECT_EQ(bundles[i].chunks(), chunks[i]) << i;
  }
}

struct LanesCase {
  const char* name;
  TrainerOptions options;
  Pooling pooling;
};

class TrainingInLanes : public DeviceTestWithParam<LanesCase> {};

/// Lanes of unlike length, some of one token, beside sequences that run alone in chunks.
TEST_P(TrainingInLanes, EqualsTrainingOneByOne) {
  Random random(11);
  std::vector<Tokens> records;
  for (const std::int64_t length : {70, 1, 0, 33, 64, 500, 90, 2}) {
    records.emplace_back(static_cast<std::size_t>(length));
    for (std::uint8_t& token : records.back()) token = static_cast<std::uint8_t>(random.integer(7, 12));
  }
  const auto run = [&](std::int64_t lanes) {
    Model model({.d_model = 24, .n_layer = 2}, 1);
    if (param().options.objective == Objective::classification) {
      model.set_classifier({.labels = {"a", "b", "c"}, .pooling = param().pooling}, 5);
    }
    std::vector<TrainingSequence> batch;
    for (std::size_t r = 0; r < records.size(); ++r) {
      batch.push_back(sequence_of(records[r], static_cast<std::int32_t>(r % 3)));
    }
    Trainer trainer(model, on_device({.threads = 2, .chunk_tokens = 256, .lanes = lanes}), param().options);
    const EvaluationResult before = trainer.evaluate(batch);
    const StepResult step = trainer.step(batch, 1e-3);
    const auto gradients = span_of(trainer.gradients().all());
    return std::tuple{before, step, std::vector<float>(gradients.begin(), gradients.end())};
  };
  const auto [before, step, gradients] = run(1);
  for (const std::int64_t lanes : {2, 3, 100}) {
    const auto [before_in_lanes, step_in_lanes, gradients_in_lanes] = run(lanes);
    EXPECT_NEAR(before_in_lanes.loss, before.loss, 1e-5 * before.loss);
    EXPECT_EQ(before_in_lanes.targets, before.targets);
    EXPECT_EQ(before_in_lanes.accuracy, before.accuracy);
    EXPECT_NEAR(step_in_lanes.loss, step.loss, 1e-5 * step.loss);
    EXPECT_LT(relative_error(gradients_in_lanes, gradients), tolerance::kChunkBackward.relative)
        << lanes << " lanes";
  }
}

INSTANTIATE_TEST_SUITE_P(
    Objectives, TrainingInLanes,
    testing::Combine(
        testing::Values(LanesCase{"next_token", {}, Pooling::mean},
                        LanesCase{"all_tokens", {.all_tokens_are_targets = true}, Pooling::mean},
                        LanesCase{"class_of_mean", {.objective = Objective::classification}, Pooling::mean},
                        LanesCase{"class_of_last", {.objective = Objective::classification}, Pooling::last},
                        LanesCase{"frozen",
                                  {.objective = Objective::classification, .freeze_backbone = true},
                                  Pooling::mean}),
        kBothDevices),
    kDeviceCaseName);

}  // namespace
}  // namespace longstrand::test
