// Against outputs of the official Mamba (tests/data/golden).
#include <gtest/gtest.h>

#include <numeric>

#include "model_support.hpp"
#include "support/tolerances.hpp"

namespace longstrand::test {
namespace {

/// Logits of every token; the chunk size is odd on purpose.
std::vector<float> logits(const Model& model, const std::vector<Tokens>& lanes, Precision precision) {
  const RunResult result = run_lanes(model, lanes, 500, {.precision = precision, .threads = 2},
                                     {.readout = Readout::tokens, .layer = InferenceOptions::kLogits});
  std::vector<float> all;
  for (const auto& values : result.values) all.insert(all.end(), values.begin(), values.end());
  return all;
}

LONGSTRAND_DEVICE_TEST(Golden, LogitsOfFloatAreTheOfficialOnes) {
  const Model model = Model::load(golden("mamba1_d64_l3"));
  SafetensorsReader expected(golden("mamba1_d64_l3") / "expected.safetensors");
  const auto lanes = read_lanes(expected, "tokens");
  const std::vector<float> got = logits(model, lanes, Precision::fp32);
  EXPECT_LT(relative_error(got, read_floats(expected, "logits_f64")), tolerance::kGoldenLogits.relative);
  EXPECT_LT(relative_error(got, read_floats(expected, "logits")), tolerance::kGoldenLogits.relative);
}

LONGSTRAND_DEVICE_TEST(Golden, HiddenRowsAreTheOfficialOnes) {
  const Model model = Model::load(golden("mamba1_d64_l3"));
  SafetensorsReader expected(golden("mamba1_d64_l3") / "expected.safetensors");
  const RunResult result =
      run_lanes(model, read_lanes(expected, "tokens"), 64, {}, {.readout = Readout::tokens});
  std::vector<float> got;
  for (const auto& values : result.values) got.insert(got.end(), values.begin(), values.end());
  EXPECT_LT(relative_error(got, read_floats(expected, "hidden")), tolerance::kGoldenLogits.relative);
}

LONGSTRAND_DEVICE_TEST(Golden, LogitsOfBfloat16AreNear) {
  const Model model = Model::load(golden("mamba1_d64_l3"));
  SafetensorsReader expected(golden("mamba1_d64_l3") / "expected.safetensors");
  const std::vector<float> got = logits(model, read_lanes(expected, "tokens"), Precision::bf16);
  EXPECT_LT(relative_error(got, read_floats(expected, "logits_f64")),
            tolerance::kGoldenLogitsBFloat16.relative);
}

LONGSTRAND_DEVICE_TEST(Golden, StateCarriesOverALongRecord) {
  const Model model = Model::load(golden("mamba1_long_d32_l2"));
  SafetensorsReader expected(golden("mamba1_long_d32_l2") / "expected.safetensors");
  const std::vector<float> got = logits(model, read_lanes(expected, "tokens"), Precision::fp32);
  const auto first = read_floats(expected, "logits_f64.first64");
  const auto last = read_floats(expected, "logits_f64.last2048");
  const std::span<const float> all(got);
  EXPECT_LT(relative_error(all.first(first.size()), first), tolerance::kGoldenLogits.relative);
  EXPECT_LT(relative_error(all.last(last.size()), last), tolerance::kGoldenLogits.relative);
}

struct GradientCase {
  std::string folder;
  std::int64_t chunk;
  std::string name = concat(folder, "_chunk", chunk);
};

class GoldenGradients : public DeviceTestWithParam<GradientCase> {};

TEST_P(GoldenGradients, AreTheOfficialOnes) {
  const auto& [folder, chunk, name] = param();
  Model model = Model::load(golden(folder));
  SafetensorsReader expected(golden(folder) / "expected.safetensors");
  const auto lanes = read_lanes(expected, "tokens");
  Trainer trainer(model, on_device({.threads = 2, .chunk_tokens = chunk}), {.all_tokens_are_targets = true});
  const StepResult step = trainer.step(sequences_of(lanes), 0.0);
  EXPECT_NEAR(step.loss, read_floats(expected, "loss")[0], tolerance::kGoldenCurve.relative);
  int compared = 0;
  for (const auto& [tensor, info] : expected.tensors()) {
    if (!tensor.starts_with("grad.")) continue;
    const std::string parameter = tensor.substr(5);
    if (!trainer.gradients().contains(parameter)) {
      EXPECT_EQ(parameter, kLmHeadWeight);
      continue;
    }
    std::vector<float> got(static_cast<std::size_t>(info.size()));
    const auto sums = span_of(trainer.gradients().flat(parameter));
    std::transform(sums.begin(), sums.end(), got.begin(),
                   [&](float sum) { return sum / static_cast<float>(step.targets); });
    EXPECT_LT(relative_error(got, read_floats(expected, tensor)), tolerance::kGoldenGradients.relative)
        << parameter;
    ++compared;
  }
  EXPECT_GT(compared, 15);
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenGradients,
                         testing::Combine(testing::Values(GradientCase{"mamba1_d64_l3", 256},
                                                          GradientCase{"mamba1_d64_l3", 4096},
                                                          GradientCase{"mamba1_long_d32_l2", 1024},
                                                          GradientCase{"mamba1_long_d32_l2", 100}),
                                          kBothDevices),
                         kDeviceCaseName);

LONGSTRAND_DEVICE_TEST(Golden, ThirtyStepsOfTrainingFollowTheOfficialCurve) {
  const auto folder = golden("train_mamba1_d32_l2");
  Model model = Model::load(folder);
  SafetensorsReader expected(folder / "expected.safetensors");
  const auto lanes = read_lanes(expected, "tokens");  // [steps x B]
  const auto losses = read_floats(expected, "losses");
  const auto grad_norms = read_floats(expected, "grad_norms");
  Trainer trainer(model, on_device({.threads = 2, .chunk_tokens = 200}), {.all_tokens_are_targets = true});
  const std::size_t lanes_per_step = lanes.size() / losses.size();
  for (std::size_t i = 0; i < losses.size(); ++i) {
    const auto first = lanes.begin() + static_cast<std::ptrdiff_t>(i * lanes_per_step);
    const std::vector<Tokens> batch(first, first + static_cast<std::ptrdiff_t>(lanes_per_step));
    const StepResult step =
        trainer.step(sequences_of(batch), 2e-3 * std::min(1.0, static_cast<double>(i + 1) / 5));
    EXPECT_NEAR(step.loss, losses[i], tolerance::kGoldenCurve.relative) << "step " << i;
    EXPECT_NEAR(step.grad_norm, grad_norms[i], tolerance::kGoldenGradients.relative * grad_norms[i])
        << "step " << i;
  }
  trainer.update_model();
  for (const auto& [tensor, info] : expected.tensors()) {
    if (!tensor.starts_with("final.") || !model.parameters().contains(tensor.substr(6))) continue;
    const auto got = span_of(model.parameters().flat(tensor.substr(6)));
    EXPECT_LT(relative_error(got, read_floats(expected, tensor)), tolerance::kGoldenWeights.relative)
        << tensor;
  }
}

}  // namespace
}  // namespace longstrand::test
