// The options that pretrain and finetune share, and what follows from them.
#pragma once

#include <cstdint>
#include <string>

#include "pipelines/command_line.hpp"
#include "pipelines/learning_rate.hpp"
#include "pipelines/run_folder.hpp"
#include "pipelines/training_loop.hpp"
#include "src/trainer.hpp"

namespace longstrand::pipelines {

struct TrainingDefaults {
  double learning_rate;
  double epochs;
  double valid_fraction;
};

struct TrainingOptions {
  std::string output;
  bool resume = false;
  bool force = false;
  std::int64_t steps = 0;  // 0: by epochs
  double epochs = 0;
  double learning_rate = 0;
  double least_learning_rate = 0;  // below 0: a tenth of learning_rate
  std::int64_t warmup_steps = 0;   // below 0: a tenth of the steps
  std::string schedule;
  double weight_decay = 0;
  std::string betas;
  double clip_norm = 0;
  std::int64_t save_every = 0;
  std::int64_t valid_every = 0;
  double valid_fraction = 0;
  bool reverse_complement = false;

  /// Must outlive the command line's parse().
  void add_to(CommandLine& line, const TrainingDefaults& defaults);

  /// Throws UsageError for what only a look at the options together, or into them, shows to be wrong.
  void check(const CommandLine& line) const;
  /// ... or with the model that is to be trained.
  void check(const ModelConfig& model) const;
  RunStart start() const;
  OptimizerOptions optimizer() const;
  std::int64_t steps_for(std::int64_t steps_per_epoch) const;
  LearningRate schedule_over(std::int64_t total_steps) const;
  /// The part of a plan that the options decide.
  TrainingPlan plan(std::string name, std::int64_t total_steps) const;
  /// The command's config with the values that the options left to the program.
  std::string config(const CommandLine& line, const LearningRate& rate, Precision precision) const;
};

}  // namespace longstrand::pipelines
