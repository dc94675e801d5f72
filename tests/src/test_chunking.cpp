// Results do not depend on how a record is cut into chunks, on the number of threads, or on the lane it runs
// in.
#include <gtest/gtest.h>

#include "model_support.hpp"
#include "src/mixer.hpp"
#include "support/random.hpp"
#include "support/tolerances.hpp"

namespace longstrand::test {
namespace {

constexpr std::int64_t kLength = 1203;
const std::vector<std::int64_t> kChunks = {1, 7, 64, 1000, kLength};

struct ReadoutCase {
  const char* name;
  InferenceOptions options;
};

/// A GPU takes the channels of a mixer in another order.
TEST(SortedChannels, AreTheSameMixer) {
  const Model model = moved_model({.d_model = 80, .n_layer = 2});
  Model sorted = moved_model({.d_model = 80, .n_layer = 2});
  for (int i = 0; i < 2; ++i) {
    find_mixer(model.config().mixer)
        .sort_channels(model.config(), layer_prefix(i) + "mixer.", sorted.parameters());
  }
  EXPECT_NE(sorted.fingerprint(), model.fingerprint());
  const std::vector<Tokens> records = {random_dna(300, 2)};
  const InferenceOptions tokens{.readout = Readout::tokens};
  const RunResult expected = run_lanes(model, records, 100, {}, tokens);
  const RunResult actual = run_lanes(sorted, records, 100, {}, tokens);
  EXPECT_LT(relative_error(actual.values[0], expected.values[0]), tolerance::kChunkForward.relative);
}

class ChunkedInference : public DeviceTestWithParam<ReadoutCase> {};

TEST_P(ChunkedInference, AnySplitEqualsOnePass) {
  Model model = small_model();
  model.set_classifier({.labels = {"a", "b", "c"}}, 5);
  const std::vector<Tokens> records = {
      random_dna(kLength, 2), random_dna(kLength / 3, 3), {}, random_dna(1, 4)};
  const RunResult whole = run_lanes(model, records, kLength, {}, param().options);
  for (const std::int64_t chunk : kChunks) {
    for (const int threads : {1, 3}) {
      const RunResult split = run_lanes(model, records, chunk, {.threads = threads}, param().options);
      for (std::size_t r = 0; r < records.size(); ++r) {
        EXPECT_LT(relative_error(split.values[r], whole.values[r]), tolerance::kChunkForward.relative)
            << "record " << r << ", chunk " << chunk;
        EXPECT_NEAR(split.log_likelihood[r], whole.log_likelihood[r],
                    1e-5 * std::abs(whole.log_likelihood[r]));
        EXPECT_EQ(split.scored_bases[r], whole.scored_bases[r]);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Readouts, ChunkedInference,
    testing::Combine(
        testing::Values(
            ReadoutCase{"tokens", {.readout = Readout::tokens}},
            ReadoutCase{"logits", {.readout = Readout::tokens, .layer = InferenceOptions::kLogits}},
            ReadoutCase{"layer2", {.readout = Readout::tokens, .layer = 2}},
            ReadoutCase{"mean", {.readout = Readout::pooled}},
            ReadoutCase{"max", {.readout = Readout::pooled, .pooling = Pooling::max}},
            ReadoutCase{"last", {.readout = Readout::pooled, .pooling = Pooling::last}},
            ReadoutCase{"mean_of_logits", {.readout = Readout::pooled, .layer = InferenceOptions::kLogits}},
            ReadoutCase{"likelihood", {.readout = Readout::log_likelihood}},
            ReadoutCase{"classes", {.readout = Readout::probabilities}}),
        kBothDevices),
    kDeviceCaseName);

LONGSTRAND_DEVICE_TEST(Inference, ARecordAloneEqualsItAmongOthers) {
  const Model model = small_model();
  const std::vector<Tokens> records = {random_dna(90, 1), random_dna(300, 2), random_dna(211, 3)};
  const InferenceOptions options{.readout = Readout::tokens};
  const RunResult together = run_lanes(model, records, 50, {}, options);
  const RunResult permuted = run_lanes(model, {records[2], records[0], records[1]}, 50, {}, options);
  for (std::size_t r = 0; r < records.size(); ++r) {
    const RunResult alone = run_lanes(model, {records[r]}, 50, {}, options);
    EXPECT_LT(relative_error(together.values[r], alone.values[0]), tolerance::kChunkForward.relative);
    EXPECT_LT(relative_error(permuted.values[(r + 1) % 3], alone.values[0]),
              tolerance::kChunkForward.relative);
  }
}

/// A lane takes the next record when one has ended: nothing of the first may reach the second.
LONGSTRAND_DEVICE_TEST(Inference, TheNextRecordOfALaneStartsAfresh) {
  const Model model = small_model();
  const std::vector<Tokens> records = {random_dna(70, 1), random_dna(45, 2)};
  const auto options = InferenceOptions{.readout = Readout::pooled};
  Inference inference(model, on_device({.threads = 2}), options);
  std::vector<std::vector<float>> got;
  std::size_t record = 0;
  inference.run(
      [&](TokenBatch& batch) {
        if (record == records.size()) return false;
        const std::int64_t length = std::ssize(records[record]);
        batch = {.lanes = 1,
                 .length = length,
                 .tokens = records[record],
                 .valid = {length},
                 .starts = {1},
                 .ends = {1},
                 .tag = {}};
        ++record;
        return true;
      },
      [&](const ChunkResult& result) {
        got.emplace_back(result.records.data, result.records.data + result.records.size());
      });
  ASSERT_EQ(got.size(), 2U);
  EXPECT_EQ(got[1], run_lanes(model, {records[1]}, 45, {}, options).values[0]);
}

/// A long record alone in its chunks, then a bundle of short ones, then a long one again.
TEST_P(ChunkedInference, TheNumberOfLanesMayChange) {
  Model model = small_model();
  model.set_classifier({.labels = {"a", "b", "c"}}, 5);
  const std::vector<Tokens> records = {random_dna(130, 1), random_dna(20, 2), {},
                                       random_dna(33, 3),  random_dna(33, 4), random_dna(90, 5)};
  const auto piece = [&](std::size_t record, std::int64_t begin, std::int64_t count) {
    const Tokens& tokens = records[record];
    return TokenBatch{.lanes = 1,
                      .length = count,
                      .tokens = {tokens.begin() + begin, tokens.begin() + begin + count},
                      .valid = {count},
                      .starts = {begin == 0},
                      .ends = {begin + count == std::ssize(tokens)},
                      .tag = std::vector{record}};
  };
  TokenBatch bundle{.lanes = 4,
                    .length = 33,
                    .tokens = Tokens(4 * 33, 4),
                    .valid = {20, 0, 33, 33},
                    .starts = {1, 1, 1, 1},
                    .ends = {1, 1, 1, 1},
                    .tag = std::vector<std::size_t>{1, 2, 3, 4}};
  for (std::size_t b = 0; b < 4; ++b) std::ranges::copy(records[b + 1], bundle.tokens.begin() + b * 33);
  const std::vector<TokenBatch> batches = {piece(0, 0, 50), piece(0, 50, 50), piece(0, 100, 30),
                                           bundle,          piece(5, 0, 45),  piece(5, 45, 45)};
  Inference inference(model, on_device({.threads = 3}), param().options);
  RunResult got{.values = std::vector<std::vector<float>>(records.size()),
                .log_likelihood = std::vector<double>(records.size()),
                .scored_bases = std::vector<std::int64_t>(records.size())};
  std::size_t batch_index = 0;
  inference.run(
      [&](TokenBatch& batch) {
        if (batch_index == batches.size()) return false;
        batch = batches[batch_index++];
        return true;
      },
      [&](const ChunkResult& result) {
        const auto& of_lane = std::any_cast<const std::vector<std::size_t>&>(result.batch.tag);
        for (std::size_t b = 0; b < of_lane.size(); ++b)
          take_lane(result, b, of_lane[b], inference.width(), got);
      });
  const RunResult expected = run_lanes(model, records, kLength, {}, param().options);
  for (std::size_t r = 0; r < records.size(); ++r) {
    EXPECT_LT(relative_error(got.values[r], expected.values[r]), tolerance::kChunkForward.relative)
        << "record " << r;
    EXPECT_NEAR(got.log_likelihood[r], expected.log_likelihood[r],
                1e-5 * std::abs(expected.log_likelihood[r]));
    EXPECT_EQ(got.scored_bases[r], expected.scored_bases[r]);
  }
}

/// Kernels for many tokens of common widths, which smaller models and chunks never meet.
LONGSTRAND_CUDA_TEST(Inference, ManyTokensAtATimeAreAsGoodAsFew) {
  const std::vector<Tokens> records = {random_dna(9001, 1), random_dna(300, 2)};
  for (const std::int64_t d_model : {128, 256}) {
    const Model model({.d_model = d_model, .n_layer = 3}, 1);
    for (const std::int64_t layer : {std::int64_t{2}, InferenceOptions::kFinal}) {
      SCOPED_TRACE(testing::Message() << "d_model " << d_model << ", layer " << layer);
      const InferenceOptions options{.readout = Readout::tokens, .layer = layer};
      const RunResult exact = run_lanes(model, records, 9001, {.precision = Precision::fp32}, options);
      for (const std::int64_t chunk : {9001, 4300, 100}) {
        const RunResult got = run_lanes(model, records, chunk, {.precision = Precision::bf16}, options);
        for (std::size_t r = 0; r < records.size(); ++r) {
          EXPECT_LT(relative_error(got.values[r], exact.values[r]), tolerance::kGoldenLogitsBFloat16.relative)
              << "record " << r << ", chunk " << chunk;
        }
      }
    }
  }
}

LONGSTRAND_DEVICE_TEST(Inference, LogLikelihoodIsTheSumOverItsBases) {
  const Model model = small_model();
  Tokens record = random_dna(130, 9);
  record[50] = 11;  // N: no target
  record[0] = 7;
  const RunResult scored = run_lanes(model, {record}, 33, {}, {.readout = Readout::log_likelihood});
  const RunResult logits =
      run_lanes(model, {record}, 33, {}, {.readout = Readout::tokens, .layer = InferenceOptions::kLogits});
  double expected = 0;
  std::int64_t bases = 0;
  for (std::size_t t = 1; t < record.size(); ++t) {
    if (record[t] == 11) continue;
    const float* row = logits.values[0].data() + (t - 1) * 16;
    double total = 0;
    for (int v = 0; v < 16; ++v) total += std::exp(static_cast<double>(row[v]));
    expected += row[record[t]] - std::log(total);
    ++bases;
  }
  EXPECT_NEAR(scored.log_likelihood[0], expected, 1e-5 * std::abs(expected));
  EXPECT_EQ(scored.scored_bases[0], bases);
}

struct TrainingCase {
  const char* name;
  Objective objective;
  Pooling pooling;
};

class ChunkedTraining : public DeviceTestWithParam<TrainingCase> {
 protected:
  /// Gradients of one step over the records, and its loss.
  std::pair<std::vector<float>, StepResult> gradients(const std::vector<Tokens>& records, std::int64_t chunk,
                                                      int threads, Precision precision = Precision::fp32,
                                                      std::int64_t by_layers_tokens = 0) const {
    Model model = small_model();
    if (param().objective == Objective::classification) {
      model.set_classifier({.labels = {"a", "b", "c"}, .pooling = param().pooling}, 5);
    }
    std::vector<TrainingSequence> batch;
    for (std::size_t r = 0; r < records.size(); ++r) {
      batch.push_back(sequence_of(records[r], static_cast<std::int32_t>(r % 3)));
    }
    if (param().objective == Objective::classification) {
      std::erase_if(batch, [](const TrainingSequence& sequence) { return sequence.length == 0; });
    }
    Trainer trainer(model,
                    on_device({.precision = precision,
                               .threads = threads,
                               .chunk_tokens = chunk,
                               .by_layers_tokens = chunk == 0 ? -1 : by_layers_tokens}),
                    {.objective = param().objective});
    const StepResult step = trainer.step(batch, 1e-3);
    const auto all = span_of(trainer.gradients().all());
    return {{all.begin(), all.end()}, step};
  }
};

TEST_P(ChunkedTraining, AnySplitEqualsOnePass) {
  const std::vector<Tokens> records = {random_dna(kLength, 2), random_dna(kLength / 3, 3), random_dna(64, 4)};
  const auto [whole, whole_step] = gradients(records, kLength, 1);
  for (const std::int64_t chunk : kChunks) {
    const auto [split, step] = gradients(records, chunk, 2);
    EXPECT_LT(relative_error(split, whole), tolerance::kChunkBackward.relative) << "chunk " << chunk;
    EXPECT_NEAR(step.loss, whole_step.loss, 1e-5 * whole_step.loss);
    EXPECT_EQ(step.targets, whole_step.targets);
  }
}

/// All chunks of one of the records go through the layers together, those of another not.
TEST_P(ChunkedTraining, LayerByLayerEqualsOnePass) {
  const std::vector<Tokens> records = {random_dna(kLength, 2), random_dna(kLength / 3, 3), random_dna(64, 4)};
  const auto [whole, whole_step] = gradients(records, kLength, 1);
  for (const std::int64_t chunk : kChunks) {
    for (const std::int64_t by_layers_tokens : {kLength, kLength / 2}) {
      const auto run = [&] { return gradients(records, chunk, 2, Precision::fp32, by_layers_tokens); };
      const auto [split, step] = run();
      EXPECT_LT(relative_error(split, whole), tolerance::kChunkBackward.relative) << "chunk " << chunk;
      EXPECT_NEAR(step.loss, whole_step.loss, 1e-5 * whole_step.loss);
      EXPECT_EQ(step.targets, whole_step.targets);
      EXPECT_EQ(run().first, split);
    }
  }
}

TEST_P(ChunkedTraining, TheNumberOfThreadsChangesNoBit) {
  const std::vector<Tokens> records = {random_dna(500, 2), random_dna(40, 3), random_dna(1203, 4)};
  const auto expected = gradients(records, 64, 1).first;
  for (const int threads : {2, 5}) EXPECT_EQ(gradients(records, 64, threads).first, expected);
}

/// Without --chunk: what is cut, and where, must not depend on the threads either.
TEST_P(ChunkedTraining, AutomaticChunksEqualOnePassForAnyNumberOfThreads) {
  const std::vector<Tokens> records = {random_dna(500, 2), {}, random_dna(1, 5), random_dna(20000, 3)};
  const auto automatic = gradients(records, 0, 1).first;
  EXPECT_EQ(gradients(records, 0, 3).first, automatic);
  EXPECT_LT(relative_error(automatic, gradients(records, 20000, 1).first),
            tolerance::kChunkBackward.relative);
}

TEST_P(ChunkedTraining, BFloat16GradientsAreNearThoseOfFloatHoweverSplit) {
  const std::vector<Tokens> records = {random_dna(700, 2), random_dna(90, 3)};
  const auto exact = gradients(records, 1000, 1).first;
  const auto whole = gradients(records, 1000, 1, Precision::bf16).first;
  EXPECT_LT(relative_error(whole, exact), tolerance::kGoldenLogitsBFloat16.relative);
  for (const std::int64_t by_layers_tokens : {0, 1000}) {
    EXPECT_LT(relative_error(gradients(records, 64, 2, Precision::bf16, by_layers_tokens).first, whole),
              tolerance::kGoldenLogitsBFloat16.relative);
  }
}

/// Chunks of one token: 20 001 take three levels of kept states; a GPU, which would wait for 10^7 launches,
/// has to do with fewer.
TEST_P(ChunkedTraining, ManyLevelsOfKeptStatesEqualOnePass) {
  const std::int64_t tokens = device_under_test().kind == DeviceKind::cpu ? 20001 : 2001;
  const std::vector<Tokens> records = {random_dna(tokens, 6)};
  const auto whole = gradients(records, tokens, 1).first;
  EXPECT_LT(relative_error(gradients(records, 1, 2).first, whole), tolerance::kChunkBackward.relative);
}

INSTANTIATE_TEST_SUITE_P(
    Objectives, ChunkedTraining,
    testing::Combine(testing::Values(TrainingCase{"next_token", Objective::next_token, Pooling::mean},
                                     TrainingCase{"class_of_mean", Objective::classification, Pooling::mean},
                                     TrainingCase{"class_of_last", Objective::classification, Pooling::last}),
                     kBothDevices),
    kDeviceCaseName);

/// The loss falls along the gradient as fast as the gradient says: all parameters at once, through chunks.
TEST_P(ChunkedTraining, GradientIsTheSlopeOfTheLoss) {
  const std::vector<Tokens> records = {random_dna(300, 2), random_dna(100, 3)};
  const auto [gradient, step] = gradients(records, 64, 2);
  double squared_norm = 0;
  for (const float g : gradient) squared_norm += static_cast<double>(g) * g;
  const auto loss_at = [&](double distance) {
    Model model = small_model();
    if (param().objective == Objective::classification) {
      model.set_classifier({.labels = {"a", "b", "c"}, .pooling = param().pooling}, 5);
    }
    const View<float, 1> all = model.parameters().all();
    for (std::int64_t i = 0; i < all.size(); ++i) {
      all.data[i] += static_cast<float>(distance * gradient[i] / std::sqrt(squared_norm));
    }
    std::vector<TrainingSequence> batch = {sequence_of(records[0], 0), sequence_of(records[1], 1)};
    Trainer trainer(model, on_device(), {.objective = param().objective});
    return trainer.evaluate(batch).loss;
  };
  const double distance = 1e-2;
  const double slope = (loss_at(distance) - loss_at(-distance)) / (2 * distance);
  EXPECT_NEAR(slope, step.grad_norm, 0.01 * step.grad_norm);
}

/// The walk ahead then takes kernels for many tokens of common widths, which the way back does not.
LONGSTRAND_CUDA_TEST(Trainer, ManyTokensAtATimeGiveGradientsAsGoodAsFew) {
  constexpr std::int64_t kTokens = 20000;
  const Tokens record = random_dna(kTokens, 1);
  const std::vector<TrainingSequence> batch = {sequence_of(record, 0)};
  for (const std::int64_t d_model : {128, 256}) {
    const auto gradients = [&](std::int64_t chunk, Precision precision, std::int64_t by_layers_tokens = 0) {
      Model model({.d_model = d_model, .n_layer = 3}, 1);
      Trainer trainer(
          model,
          on_device({.precision = precision, .chunk_tokens = chunk, .by_layers_tokens = by_layers_tokens}),
          {});
      trainer.step(batch, 1e-3);
      const auto all = span_of(trainer.gradients().all());
      return std::vector<float>(all.begin(), all.end());
    };
    const std::vector<float> exact = gradients(kTokens, Precision::fp32);
    for (const std::int64_t chunk : {kTokens, std::int64_t{9000}, std::int64_t{1000}}) {
      for (const std::int64_t by_layers_tokens : {std::int64_t{0}, kTokens}) {
        EXPECT_LT(relative_error(gradients(chunk, Precision::bf16, by_layers_tokens), exact),
                  tolerance::kGoldenLogitsBFloat16.relative)
            << "d_model " << d_model << ", chunk " << chunk << ", by layers " << by_layers_tokens;
      }
    }
  }
}

LONGSTRAND_DEVICE_TEST(Trainer, AFrozenBackboneStaysAndTheHeadLearns) {
  Model model = small_model();
  model.set_classifier({.labels = {"a", "b"}}, 5);
  const Model before = [&] {
    Model copy = small_model();
    copy.set_classifier({.labels = {"a", "b"}}, 5);
    return copy;
  }();
  const std::vector<Tokens> records = {random_dna(100, 1), random_dna(100, 2)};
  const std::vector<TrainingSequence> batch = {sequence_of(records[0], 0), sequence_of(records[1], 1)};
  Trainer trainer(model, on_device({.threads = 2}),
                  {.objective = Objective::classification, .freeze_backbone = true});
  const double first = trainer.step(batch, 1e-2).loss;
  double last = first;
  for (int i = 0; i < 30; ++i) last = trainer.step(batch, 1e-2).loss;
  EXPECT_LT(last, 0.8 * first);
  trainer.update_model();
  for (const ParameterSpec& spec : model.parameters().specs()) {
    const auto now = span_of(model.parameters().flat(spec.name));
    const auto then = span_of(before.parameters().flat(spec.name));
    const bool same = std::equal(now.begin(), now.end(), then.begin());
    EXPECT_EQ(same, !spec.name.starts_with("classifier.")) << spec.name;
  }
}

LONGSTRAND_DEVICE_TEST(Trainer, ContinuesFromItsStateNumberForNumber) {
  const std::vector<Tokens> records = {random_dna(200, 1)};
  const auto batch = sequences_of(records);
  Model straight = small_model();
  Trainer trainer(straight, on_device(), {});
  std::vector<double> losses;
  for (int i = 0; i < 6; ++i) losses.push_back(trainer.step(batch, 1e-3).loss);

  Model interrupted = small_model();
  Trainer::State state;
  {
    Trainer first(interrupted, on_device(), {});
    for (int i = 0; i < 3; ++i) first.step(batch, 1e-3);
    state = first.state();
    first.update_model();
  }
  Trainer second(interrupted, on_device({.threads = 2}), {});
  second.set_state(state);
  for (int i = 3; i < 6; ++i) EXPECT_EQ(second.step(batch, 1e-3).loss, losses[i]);
}

LONGSTRAND_DEVICE_TEST(Trainer, ALossThatIsNotFiniteLeavesTheWeights) {
  Model model = small_model();
  const std::vector<Tokens> records = {random_dna(50, 1)};
  model.parameters().flat(kFinalNormWeight).data[0] = std::numeric_limits<float>::infinity();
  const std::string before = model.fingerprint();
  Trainer trainer(model, on_device(), {});
  EXPECT_THROW(trainer.step(sequences_of(records), 1e-3), std::runtime_error);
  trainer.update_model();
  EXPECT_EQ(model.fingerprint(), before);
}

LONGSTRAND_DEVICE_TEST(Trainer, RefusesALabelThatTheClassifierDoesNotHave) {
  Model model = small_model();
  model.set_classifier({.labels = {"a", "b"}}, 5);
  const std::vector<Tokens> records = {random_dna(100, 1)};
  Trainer trainer(model, on_device(), {.objective = Objective::classification});
  for (const std::int32_t label : {-1, 2}) {
    const std::vector<TrainingSequence> batch = {sequence_of(records[0], label)};
    EXPECT_THROW(trainer.step(batch, 1e-3), std::logic_error);
    EXPECT_THROW(trainer.evaluate(batch), std::logic_error);
  }
}

LONGSTRAND_DEVICE_TEST(Trainer, RefusesABatchWithoutTargets) {
  Model model = small_model();
  const std::vector<Tokens> records = {{}, random_dna(1, 1), Tokens(50, 11)};
  Trainer trainer(model, on_device(), {});
  EXPECT_THROW(trainer.step(sequences_of(records), 1e-3), std::runtime_error);
  EXPECT_EQ(trainer.evaluate(sequences_of(records)).targets, 0);
  EXPECT_EQ(trainer.evaluate({}).targets, 0);
}

struct ShapeCase {
  const char* name;
  ModelConfig config;
};

class AnyShape : public DeviceTestWithParam<ShapeCase> {};

/// The chunked pass, forward and backward, of shapes that no fast path was written for.
TEST_P(AnyShape, SplitsEqualOnePassAndGradientIsTheSlope) {
  const std::vector<Tokens> records = {random_dna(150, 7), random_dna(61, 8)};
  const auto step = [&](std::int64_t chunk, double distance) {
    Model model(param().config, 3);
    Trainer gradient_of(model, on_device({.chunk_tokens = chunk}), {});
    const StepResult result = gradient_of.step(sequences_of(records), 0.0);
    const auto sums = span_of(gradient_of.gradients().all());
    const std::vector<float> gradient(sums.begin(), sums.end());
    const View<float, 1> all = model.parameters().all();
    const double norm = result.grad_norm * static_cast<double>(result.targets);
    for (std::int64_t i = 0; i < all.size(); ++i) {
      all.data[i] += static_cast<float>(distance * static_cast<double>(gradient[i]) / norm);
    }
    Trainer moved(model, on_device(), {});
    return std::tuple{gradient, result.grad_norm, moved.evaluate(sequences_of(records)).loss};
  };
  const auto [whole, norm, above] = step(1000, 3e-3);
  const auto [split, split_norm, below] = step(23, -3e-3);
  EXPECT_LT(relative_error(split, whole), tolerance::kChunkBackward.relative);
  EXPECT_NEAR((above - below) / 6e-3, norm, 0.02 * norm);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, AnyShape,
    testing::Combine(
        testing::Values(ShapeCase{"odd_width", {.d_model = 17, .n_layer = 2}},
                        ShapeCase{"one_state", {.d_model = 16, .n_layer = 2, .d_state = 1}},
                        ShapeCase{"many_states", {.d_model = 16, .n_layer = 1, .d_state = 64}},
                        ShapeCase{"two_taps", {.d_model = 16, .n_layer = 2, .d_conv = 2}},
                        ShapeCase{"eight_taps", {.d_model = 16, .n_layer = 2, .d_conv = 8}},
                        ShapeCase{"wide_rank", {.d_model = 16, .n_layer = 2, .expand = 3, .dt_rank = 5}},
                        ShapeCase{"untied", {.d_model = 16, .n_layer = 2, .tie_embeddings = false}}),
        kBothDevices),
    kDeviceCaseName);

}  // namespace
}  // namespace longstrand::test
