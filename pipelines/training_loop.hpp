// The steps of a training run, whatever it trains: learning rate, metrics, validation, saving, stopping.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "pipelines/learning_rate.hpp"
#include "pipelines/run_folder.hpp"
#include "src/trainer.hpp"

namespace longstrand::pipelines {

struct TrainingPlan {
  std::string name;  // of the command; begins the ids of the MultiQC sections
  bool classifies = false;
  LearningRate learning_rate;    // its `steps` is the length of the run
  std::int64_t save_every = 0;   // steps, > 0
  std::int64_t valid_every = 0;  // steps, > 0; the last step is always validated
  std::function<std::vector<TrainingSequence>(std::int64_t step)> batch;  // of a step; they count from 0
  std::vector<TrainingSequence> validation;                               // empty: none, and no best/
};

/// Runs the steps that are not yet done, from the last save if the folder has one. What it leaves in the
/// folder does not depend on how often it was killed and resumed, but for the measured speed. Throws
/// Interrupted after a save.
void run_training(const TrainingPlan& plan, RunFolder& run, Model& model, Trainer& trainer);

}  // namespace longstrand::pipelines
