// Gradients of bidirectional models do not depend on chunks, lanes and threads, and are the slope of the
// loss.
#include <gtest/gtest.h>

#include "bidirectional_support.hpp"
#include "support/tolerances.hpp"

namespace longstrand::test {
namespace {

struct Gradients {
  std::vector<float> values;
  StepResult step;
};

/// Of masked tokens, and of classes by either pooling.
struct Task {
  Objective objective;
  Pooling pooling = Pooling::mean;
};
const std::vector<Task> kTasks = {
    {Objective::masked_token}, {Objective::classification}, {Objective::classification, Pooling::last}};

class BidirectionalTraining : public DeviceTestWithParam<ModelCase> {
 protected:
  Model model_for(const Task& task) const {
    Model model = moved_model(param().config);
    if (task.objective == Objective::classification) {
      model.set_classifier({.labels = {"a", "b", "c"}, .pooling = task.pooling}, 5);
    }
    return model;
  }

  /// The records must outlive it; targets are kept here.
  std::vector<TrainingSequence> batch_of(const std::vector<Tokens>& records) {
    targets_ = some_targets(records);
    std::vector<TrainingSequence> batch;
    for (std::size_t r = 0; r < records.size(); ++r) {
      batch.push_back(sequence_of(records[r], static_cast<std::int32_t>(r % 3)));
      batch.back().read_targets = reader_of(targets_[r]);
    }
    return batch;
  }

  Gradients gradients(const Task& task, const std::vector<Tokens>& records, ExecutionOptions execution) {
    Model model = model_for(task);
    Trainer trainer(model, on_device(execution), {.objective = task.objective});
    const StepResult step = trainer.step(batch_of(records), 1e-3);
    const auto all = span_of(trainer.gradients().all());
    return {{all.begin(), all.end()}, step};
  }

 private:
  std::vector<Tokens> targets_;
};

TEST_P(BidirectionalTraining, AnySplitEqualsOnePass) {
  const std::vector<Tokens> records = {random_dna(403, 2), random_dna(130, 3), random_dna(64, 4)};
  for (const Task& task : kTasks) {
    const Gradients whole = gradients(task, records, {.chunk_tokens = 1000});
    for (const std::int64_t chunk : {1, 7, 64, 400}) {
      const Gradients split = gradients(task, records, {.threads = 2, .chunk_tokens = chunk});
      EXPECT_LT(relative_error(split.values, whole.values), tolerance::kChunkBackward.relative)
          << "chunk " << chunk;
      EXPECT_NEAR(split.step.loss, whole.step.loss, 1e-5 * whole.step.loss);
      EXPECT_EQ(split.step.targets, whole.step.targets);
    }
  }
}

TEST_P(BidirectionalTraining, LanesSideBySideEqualOneByOne) {
  const std::vector<Tokens> records = {random_dna(40, 2), random_dna(64, 3), random_dna(1, 4),
                                       random_dna(64, 5)};
  for (const Task& task : kTasks) {
    const Gradients alone = gradients(task, records, {.chunk_tokens = 1000, .lanes = 1});
    const Gradients together = gradients(task, records, {.chunk_tokens = 1000, .lanes = 4});
    EXPECT_LT(relative_error(together.values, alone.values), tolerance::kChunkBackward.relative);
    EXPECT_NEAR(together.step.loss, alone.step.loss, 1e-5 * alone.step.loss);
    EXPECT_EQ(together.step.targets, alone.step.targets);
  }
}

TEST_P(BidirectionalTraining, TheNumberOfThreadsChangesNoBit) {
  const std::vector<Tokens> records = {random_dna(500, 2), {}, random_dna(40, 3)};
  const Task task{Objective::masked_token};
  const auto expected = gradients(task, records, {.threads = 1}).values;
  for (const int threads : {2, 5}) {
    EXPECT_EQ(gradients(task, records, {.threads = threads}).values, expected);
  }
}

TEST_P(BidirectionalTraining, BFloat16GradientsAreNearThoseOfFloatHoweverSplit) {
  const std::vector<Tokens> records = {random_dna(300, 2), random_dna(90, 3)};
  for (const Task& task : kTasks) {
    const auto exact = gradients(task, records, {.chunk_tokens = 1000}).values;
    const auto whole = gradients(task, records, {.precision = Precision::bf16, .chunk_tokens = 1000}).values;
    const auto split = gradients(task, records, {.precision = Precision::bf16, .chunk_tokens = 64}).values;
    EXPECT_LT(relative_error(whole, exact), tolerance::kGoldenLogitsBFloat16.relative);
    EXPECT_LT(relative_error(split, whole), tolerance::kGoldenLogitsBFloat16.relative);
  }
}

/// The loss falls along the gradient as fast as the gradient says: all parameters at once, through chunks.
TEST_P(BidirectionalTraining, GradientIsTheSlopeOfTheLoss) {
  const std::vector<Tokens> records = {random_dna(200, 2), random_dna(70, 3)};
  for (const Task& task : kTasks) {
    const Gradients at_start = gradients(task, records, {.chunk_tokens = 64});
    double squared_norm = 0;
    for (const float g : at_start.values) squared_norm += static_cast<double>(g) * g;
    const auto loss_at = [&](double distance) {
      Model model = model_for(task);
      const View<float, 1> all = model.parameters().all();
      for (std::int64_t i = 0; i < all.size(); ++i) {
        all.data[i] += static_cast<float>(distance * at_start.values[i] / std::sqrt(squared_norm));
      }
      Trainer trainer(model, on_device(), {.objective = task.objective});
      return trainer.evaluate(batch_of(records)).loss;
    };
    constexpr double kDistance = 1e-2;
    const double slope = (loss_at(kDistance) - loss_at(-kDistance)) / (2 * kDistance);
    EXPECT_NEAR(slope, at_start.step.grad_norm, 0.01 * at_start.step.grad_norm);
  }
}

TEST_P(BidirectionalTraining, AFrozenBackboneStaysAndTheHeadLearns) {
  const std::vector<Tokens> records = {random_dna(100, 1), random_dna(100, 2)};
  Model model = model_for({Objective::classification});
  const Model before = model_for({Objective::classification});
  Trainer trainer(model, on_device({.threads = 2, .chunk_tokens = 30}),
                  {.objective = Objective::classification, .freeze_backbone = true});
  const auto batch = batch_of(records);
  const double first = trainer.step(batch, 1e-2).loss;
  double last = first;
  for (int i = 0; i < 30; ++i) last = trainer.step(batch, 1e-2).loss;
  EXPECT_LT(last, 0.8 * first);
  trainer.update_model();
  for (const ParameterSpec& spec : model.parameters().specs()) {
    const auto now = span_of(model.parameters().flat(spec.name));
    const auto then = span_of(before.parameters().flat(spec.name));
    EXPECT_EQ(std::ranges::equal(now, then), !spec.name.starts_with("classifier.")) << spec.name;
  }
}

TEST_P(BidirectionalTraining, LearnsToFillInWhatIsMasked) {
  Tokens record(240);
  for (std::size_t i = 0; i < record.size(); ++i) record[i] = static_cast<std::uint8_t>(7 + i / 2 % 4);
  const Tokens truth = record;
  Tokens masked = record, targets(record.size(), kNoTargetToken);
  for (std::size_t i = 3; i < record.size(); i += 7) {
    masked[i] = 3;
    targets[i] = truth[i];
  }
  TrainingSequence sequence = sequence_of(masked);
  sequence.read_targets = reader_of(targets);
  Model model(param().config, 3);
  Trainer trainer(model, on_device({.chunk_tokens = 100}), {.objective = Objective::masked_token});
  for (int i = 0; i < 60; ++i) trainer.step({&sequence, 1}, 1e-2);
  EXPECT_GT(trainer.evaluate({&sequence, 1}).accuracy, 0.95);
}

TEST_P(BidirectionalTraining, TellsHowFarABatchIs) {
  const std::vector<Tokens> records = {random_dna(403, 2), random_dna(130, 3)};
  for (const int threads : {1, 2}) {
    Model model = moved_model(param().config);
    Trainer trainer(model, on_device({.threads = threads, .chunk_tokens = 64, .lanes = 1}),
                    {.objective = Objective::masked_token});
    std::vector<std::int64_t> told;
    const auto poll = [&](std::int64_t tokens) { told.push_back(tokens); };
    const auto expect_told = [&](std::int64_t of_walk) {
      EXPECT_TRUE(std::ranges::is_sorted(told));
      told.erase(std::ranges::unique(told).begin(), told.end());  // only walks count
      EXPECT_EQ(std::ssize(told),
                3 * 2 * (7 + 3) * of_walk + 1);  // layers x directions x chunks, and the end
      EXPECT_EQ(told.front(), 0);
      EXPECT_EQ(std::ranges::count(told, 403), 1);
      EXPECT_EQ(told.back(), 403 + 130);
      told.clear();
    };
    trainer.step(batch_of(records), 1e-3, poll);
    expect_told(2);  // on the way there and on the way back
    trainer.evaluate(batch_of(records), poll);
    expect_told(1);
  }
}

TEST_P(BidirectionalTraining, WhatAPollThrowsEndsAStepThatHasChangedNothing) {
  const std::vector<Tokens> records = {random_dna(403, 2)};
  Model model = moved_model(param().config);
  Trainer trainer(model, on_device({.chunk_tokens = 64}), {.objective = Objective::masked_token});
  const auto throws_late = [](std::int64_t tokens) {
    if (tokens > 300) throw std::domain_error("enough");
  };
  EXPECT_THROW(trainer.step(batch_of(records), 1e-3, throws_late), std::domain_error);
  trainer.update_model();
  EXPECT_TRUE(std::ranges::equal(span_of(model.parameters().all()),
                                 span_of(moved_model(param().config).parameters().all())));
  EXPECT_EQ(trainer.state().updates, 0);
}

TEST_P(BidirectionalTraining, RefusesObjectivesOfOtherModels) {
  Model model = moved_model(param().config), causal = small_model();
  EXPECT_THROW(Trainer(model, on_device(), {.objective = Objective::next_token}), std::invalid_argument);
  EXPECT_THROW(Trainer(causal, on_device(), {.objective = Objective::masked_token}), std::invalid_argument);
}

INSTANTIATE_TEST_SUITE_P(Models, BidirectionalTraining, testing::Combine(kModels, kBothDevices),
                         kDeviceCaseName);

/// One strand is as good as the other to learn from.
LONGSTRAND_DEVICE_TEST(EquivariantTraining, BothStrandsGiveTheSameGradients) {
  for (const bool exchange : {true, false}) {
    const ModelConfig config = bidirectional({.equivariant = true, .exchange_residuals = exchange});
    const auto gradients_of = [&](const Tokens& record, const Tokens& targets, Objective objective) {
      Model model = moved_model(config);
      model.set_classifier({.labels = {"a", "b"}, .pooling = Pooling::last}, 5);
      TrainingSequence sequence = sequence_of(record, 1);
      sequence.read_targets = reader_of(targets);
      Trainer trainer(model, on_device({.chunk_tokens = 50}), {.objective = objective});
      trainer.step({&sequence, 1}, 0.0);
      const auto all = span_of(trainer.gradients().all());
      return std::vector<float>(all.begin(), all.end());
    };
    const Tokens record = random_dna(130, 2), targets = some_targets({record}).front();
    for (const Objective objective : {Objective::masked_token, Objective::classification}) {
      EXPECT_LT(
          relative_error(gradients_of(reverse_complement(record), reverse_complement(targets), objective),
                         gradients_of(record, targets, objective)),
          tolerance::kChunkBackward.relative);
    }
  }
}

}  // namespace
}  // namespace longstrand::test
