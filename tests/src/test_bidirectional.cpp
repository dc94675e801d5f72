// Bidirectional models: against outputs of the official Caduceus (tests/data/golden), and what must hold of
// any: nothing depends on chunks, lanes and threads, and strands are alike where the model promises it.
#include <gtest/gtest.h>

#include <any>
#include <deque>

#include "bidirectional_support.hpp"
#include "src/tensor_names.hpp"
#include "support/tolerances.hpp"

namespace longstrand::test {
namespace {

const InferenceOptions kLogits{.readout = Readout::tokens, .layer = InferenceOptions::kLogits};

std::vector<float> flat(const std::vector<std::vector<float>>& records) {
  std::vector<float> all;
  for (const auto& values : records) all.insert(all.end(), values.begin(), values.end());
  return all;
}

struct GoldenCase {
  const char* name;
};

class GoldenCaduceus : public DeviceTestWithParam<GoldenCase> {
 protected:
  Model model = Model::load(golden(param().name));
  SafetensorsReader expected{golden(param().name) / "expected.safetensors"};
};

TEST_P(GoldenCaduceus, LogitsOfFloatAreTheOfficialOnes) {
  const auto records = read_lanes(expected, "tokens");
  for (const std::int64_t chunk : {100, 4096}) {
    const auto got =
        flat(run_lanes(model, records, 300, {.threads = 2, .chunk_tokens = chunk}, kLogits).values);
    EXPECT_LT(relative_error(got, read_floats(expected, "logits_f64")), tolerance::kGoldenLogits.relative);
    EXPECT_LT(relative_error(got, read_floats(expected, "logits")), tolerance::kGoldenLogits.relative);
  }
}

TEST_P(GoldenCaduceus, LogitsOfTheReverseComplementAreTheOfficialOnes) {
  std::vector<Tokens> records;
  for (const Tokens& record : read_lanes(expected, "tokens")) records.push_back(reverse_complement(record));
  const auto got = flat(run_lanes(model, records, 4096, {}, kLogits).values);
  EXPECT_LT(relative_error(got, read_floats(expected, "logits_of_reverse_complement")),
            tolerance::kGoldenLogits.relative);
}

TEST_P(GoldenCaduceus, LogitsOfBfloat16AreNear) {
  const auto got = flat(
      run_lanes(model, read_lanes(expected, "tokens"), 4096, {.precision = Precision::bf16}, kLogits).values);
  EXPECT_LT(relative_error(got, read_floats(expected, "logits_f64")),
            tolerance::kGoldenLogitsBFloat16.relative);
}

TEST_P(GoldenCaduceus, MaskedLossAndGradientsAreTheOfficialOnes) {
  const auto records = read_lanes(expected, "tokens"), masked = read_lanes(expected, "masked_tokens");
  std::vector<Tokens> targets = records;
  std::vector<TrainingSequence> batch;
  for (std::size_t r = 0; r < records.size(); ++r) {
    for (std::size_t i = 0; i < records[r].size(); ++i) {
      if (masked[r][i] == records[r][i]) targets[r][i] = kNoTargetToken;
    }
    batch.push_back(sequence_of(masked[r]));
    batch.back().read_targets = reader_of(targets[r]);
  }
  for (const std::int64_t chunk : {100, 4096}) {
    SCOPED_TRACE(concat("chunk ", chunk));
    Trainer trainer(model, on_device({.threads = 2, .chunk_tokens = chunk}),
                    {.objective = Objective::masked_token});
    const StepResult step = trainer.step(batch, 0.0);
    EXPECT_NEAR(step.loss, read_floats(expected, "masked_loss")[0], tolerance::kGoldenCurve.relative);
    const ParameterStore& gradients = trainer.gradients();
    for (const ParameterSpec& spec : gradients.specs()) {
      const std::string official =
          "grad." + name_in_layout(spec.name, model.config(), CheckpointLayout::caduceus);
      std::vector<float> got(static_cast<std::size_t>(spec.size()));
      std::ranges::transform(span_of(gradients.flat(spec.name)), got.begin(),
                             [&](float sum) { return sum / static_cast<float>(step.targets); });
      EXPECT_LT(relative_error(got, read_floats(expected, official)), tolerance::kGoldenGradients.relative)
          << spec.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenCaduceus,
                         testing::Combine(testing::Values(GoldenCase{"caduceus_ph_d32_l4"},
                                                          GoldenCase{"caduceus_ps_d32_l4"},
                                                          GoldenCase{"caduceus_ps_unfused_d32_l3"}),
                                          kBothDevices),
                         kDeviceCaseName);

class Bidirectional : public DeviceTestWithParam<ModelCase> {
 protected:
  Bidirectional() { model.set_classifier({.labels = {"a", "b", "c"}}, 5); }
  Model model = moved_model(param().config);
};

constexpr std::int64_t kLength = 403;

const std::vector<InferenceOptions> kReadouts = {
    {.readout = Readout::tokens},
    kLogits,
    {.readout = Readout::tokens, .layer = 2},
    {.readout = Readout::pooled},
    {.readout = Readout::pooled, .pooling = Pooling::max},
    {.readout = Readout::pooled, .pooling = Pooling::last},
    {.readout = Readout::pooled, .layer = InferenceOptions::kLogits},
    {.readout = Readout::pooled, .layer = 1},
    {.readout = Readout::probabilities},
    {.readout = Readout::masked_log_likelihood},
};

void expect_same(const RunResult& got, const RunResult& expected) {
  for (std::size_t r = 0; r < expected.values.size(); ++r) {
    EXPECT_LT(relative_error(got.values[r], expected.values[r]), tolerance::kChunkForward.relative)
        << "record " << r;
    EXPECT_NEAR(got.log_likelihood[r], expected.log_likelihood[r],
                tolerance::kChunkForward.relative * std::abs(expected.log_likelihood[r]));
    EXPECT_EQ(got.scored_bases[r], expected.scored_bases[r]);
  }
}

TEST_P(Bidirectional, AnySplitEqualsOnePass) {
  const std::vector<Tokens> records = {
      random_dna(kLength, 2), random_dna(kLength / 3, 3), {}, random_dna(1, 4)};
  const auto targets = some_targets(records);
  for (const InferenceOptions& options : kReadouts) {
    SCOPED_TRACE(concat("readout ", static_cast<int>(options.readout), " of layer ", options.layer));
    const RunResult whole =
        run_lanes(model, records, kLength, {.chunk_tokens = 4 * kLength}, options, targets);
    for (const std::int64_t chunk : {1, 7, 64, 1000}) {
      SCOPED_TRACE(concat("chunk ", chunk));
      const ExecutionOptions execution{.threads = chunk == 64 ? 3 : 1, .chunk_tokens = chunk};
      expect_same(run_lanes(model, records, 50, execution, options, targets), whole);
    }
  }
}

/// A long record alone in its chunks, then a bundle of short ones, then a long one again.
TEST_P(Bidirectional, RecordsOfAStreamAreOnTheirOwn) {
  const std::vector<Tokens> records = {
      random_dna(130, 1), random_dna(20, 2), {}, random_dna(33, 3), random_dna(90, 5)};
  const auto targets = some_targets(records);
  const std::vector<std::vector<std::size_t>> groups = {{0}, {1, 2, 3}, {4}};
  for (const InferenceOptions& options : kReadouts) {
    SCOPED_TRACE(concat("readout ", static_cast<int>(options.readout), " of layer ", options.layer));
    std::deque<LaneBatches> streams;
    for (const auto& group : groups) {
      std::vector<Tokens> of_group, targets_of_group;
      for (const std::size_t r : group)
        of_group.push_back(records[r]), targets_of_group.push_back(targets[r]);
      streams.emplace_back(of_group, 40, targets_of_group);
    }
    Inference inference(model, on_device({.threads = 2, .chunk_tokens = 30}), options);
    RunResult got{.values = std::vector<std::vector<float>>(records.size()),
                  .log_likelihood = std::vector<double>(records.size()),
                  .scored_bases = std::vector<std::int64_t>(records.size())};
    std::size_t stream = 0;
    inference.run(
        [&](TokenBatch& batch) {
          while (stream < groups.size() && !streams[stream].next(batch)) ++stream;
          batch.tag = stream;
          return stream < groups.size();
        },
        [&](const ChunkResult& result) {
          const auto& group = groups[std::any_cast<std::size_t>(result.batch.tag)];
          for (std::size_t b = 0; b < group.size(); ++b) {
            take_lane(result, b, group[b], inference.width(), got);
          }
        });
    expect_same(got, run_lanes(model, records, 200, {}, options, targets));
  }
}

TEST_P(Bidirectional, TellsHowFarRecordsUnderWayAre) {
  const std::vector<Tokens> records = {random_dna(200, 7), random_dna(61, 8)};
  constexpr std::int64_t kTokens = 261;
  constexpr std::int64_t kWalks = 3 * 2 * 7;  // layers x directions x chunks, of 30 tokens or 29
  for (const int threads : {1, 2}) {
    Inference inference(model, on_device({.threads = threads, .chunk_tokens = 60}), {});
    LaneBatches batches(records, 40);
    std::vector<std::int64_t> told;
    bool delivered = false;
    inference.run([&](TokenBatch& batch) { return batches.next(batch); },
                  [&](const ChunkResult&) { delivered = true; },
                  [&](std::int64_t tokens) {
                    EXPECT_FALSE(delivered);
                    told.push_back(tokens);
                  });
    told.erase(std::ranges::unique(told).begin(), told.end());  // only walks count
    ASSERT_EQ(std::ssize(told), kWalks + 1);
    for (std::int64_t i = 0; i <= kWalks; ++i) EXPECT_LE(std::abs(told[i] - i * kTokens / kWalks), 1);
  }
}

TEST_P(Bidirectional, MaskedLogLikelihoodIsTheSumOverTheTargets) {
  Tokens record = random_dna(130, 9);
  record[50] = 11;  // N
  const std::vector<Tokens> targets = some_targets({record});
  const RunResult scored =
      run_lanes(model, {record}, 33, {}, {.readout = Readout::masked_log_likelihood}, targets);
  const RunResult logits = run_lanes(model, {record}, 33, {}, kLogits);
  double expected = 0;
  std::int64_t bases = 0;
  for (std::size_t t = 0; t < record.size(); ++t) {
    if (targets[0][t] == kNoTargetToken) continue;
    const float* row = logits.values[0].data() + t * 16;
    double total = 0;
    for (int v = 0; v < 16; ++v) total += std::exp(static_cast<double>(row[v]));
    expected += row[targets[0][t]] - std::log(total);
    ++bases;
  }
  EXPECT_NEAR(scored.log_likelihood[0], expected, 1e-5 * std::abs(expected));
  EXPECT_EQ(scored.scored_bases[0], bases);
}

/// What is to the right of a token matters to it, as what is to the left does.
TEST_P(Bidirectional, EveryTokenSeesAllOthers) {
  Tokens record = random_dna(60, 9);
  const auto before = run_lanes(model, {record}, 60, {}, {.readout = Readout::tokens}).values[0];
  record[30] = record[30] == 7 ? 8 : 7;
  const auto after = run_lanes(model, {record}, 60, {}, {.readout = Readout::tokens}).values[0];
  const auto differs = [&](std::size_t t) {
    return !std::equal(before.begin() + t * 24, before.begin() + (t + 1) * 24, after.begin() + t * 24);
  };
  for (const std::size_t t : {25, 29, 30, 31, 35}) EXPECT_TRUE(differs(t)) << "token " << t;
}

TEST_P(Bidirectional, RefusesWhatNeedsAReadingDirection) {
  EXPECT_THROW(Inference(model, on_device(), {.readout = Readout::log_likelihood}), std::invalid_argument);
  EXPECT_THROW(Inference(small_model(), on_device(), {.readout = Readout::masked_log_likelihood}),
               std::invalid_argument);
  EXPECT_THROW(run_lanes(model, {random_dna(9, 1)}, 9, {}, {.readout = Readout::masked_log_likelihood}),
               std::logic_error);
}

INSTANTIATE_TEST_SUITE_P(Models, Bidirectional, testing::Combine(kModels, kBothDevices), kDeviceCaseName);

/// Rows last to first; of logits, each column's complement.
std::vector<float> facing_rows(const std::vector<float>& values, std::size_t rows, bool logits) {
  const std::size_t width = values.size() / rows;
  std::vector<float> facing(values.size());
  for (std::size_t t = 0; t < rows; ++t) {
    for (std::size_t d = 0; d < width; ++d) {
      const std::size_t column = logits ? complement(static_cast<std::uint8_t>(d)) : d;
      facing[t * width + d] = values[(rows - 1 - t) * width + column];
    }
  }
  return facing;
}

class Equivariant : public Bidirectional {};

/// A record and its reverse complement: the same vectors, row t of one for row length - 1 - t of the other.
TEST_P(Equivariant, BothStrandsGiveTheSame) {
  const std::vector<Tokens> records = {random_dna(203, 2), random_dna(64, 3), random_dna(1, 4)};
  const auto targets = some_targets(records);
  std::vector<Tokens> others, others_targets;
  for (const Tokens& record : records) others.push_back(reverse_complement(record));
  for (const Tokens& target : targets) others_targets.push_back(reverse_complement(target));
  for (const InferenceOptions& options : kReadouts) {
    SCOPED_TRACE(concat("readout ", static_cast<int>(options.readout), " of layer ", options.layer));
    const ExecutionOptions execution{.chunk_tokens = 50};
    const RunResult expected = run_lanes(model, records, 300, execution, options, targets);
    RunResult got = run_lanes(model, others, 300, execution, options, others_targets);
    const bool logits = options.layer == InferenceOptions::kLogits;
    if (options.readout == Readout::tokens) {
      for (std::size_t r = 0; r < records.size(); ++r) {
        got.values[r] = facing_rows(got.values[r], records[r].size(), logits);
      }
    }
    expect_same(got, expected);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, Equivariant,
    testing::Combine(testing::Values(ModelCase{"strands", bidirectional({.equivariant = true})},
                                     ModelCase{"strands_stay", bidirectional({.equivariant = true,
                                                                              .exchange_residuals = false})}),
                     kBothDevices),
    kDeviceCaseName);

}  // namespace
}  // namespace longstrand::test
