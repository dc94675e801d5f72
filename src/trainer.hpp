// Training steps with exact gradients for sequences of any length (chunked backpropagation;
// src/chunk_major_trainer.cpp, src/layer_major_trainer.cpp).
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "src/execution.hpp"
#include "src/model.hpp"

namespace longstrand {

/// One sequence to train on. Its tokens are read where they are needed, a chunk at a time (by a bidirectional
/// model all at once), from any thread, one call at a time, more than once.
struct TrainingSequence {
  std::int64_t length = 0;
  std::function<void(std::int64_t begin, std::span<std::uint8_t> tokens)> read;
  std::int32_t label = -1;  // class id, for Objective::classification
  /// For Objective::masked_token, whose `read` gives the tokens as the model sees them: what stands there in
  /// truth, or kNoTargetToken where that is not asked for.
  std::function<void(std::int64_t begin, std::span<std::uint8_t> targets)> read_targets = {};
};

enum class Objective : std::uint8_t {
  next_token,  // clm: mean cross entropy of A, C, G, T given what is before them; other tokens are no targets
  masked_token,    // mlm: mean cross entropy of a sequence's targets given all of it
  classification,  // mean cross entropy of the label given the pooled record
};

struct OptimizerOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
  double clip_norm = 1.0;  // 0: none
};

struct TrainerOptions {
  Objective objective = Objective::next_token;
  OptimizerOptions optimizer = {};
  bool freeze_backbone = false;         // classification: only the head learns
  bool all_tokens_are_targets = false;  // next_token: every token counts, as in the original code's loss
};

struct StepResult {
  double loss = 0;       // mean over targets, nats
  double accuracy = 0;   // share of targets whose class was the most probable
  double grad_norm = 0;  // before clipping
  std::int64_t targets = 0;
  std::int64_t tokens = 0;
};

struct EvaluationResult {
  double loss = 0;
  double accuracy = 0;  // share of targets whose class is the most probable
  std::int64_t targets = 0;
};

class Trainer {
 public:
  /// The model must outlive it. Steps change its weights, on a GPU those of a copy there: see update_model().
  /// Throws std::invalid_argument for an objective that is not for the model: next_token is for causal
  /// models, masked_token for bidirectional ones, classification for those with labels.
  Trainer(Model& model, const ExecutionOptions& execution, const TrainerOptions& options);
  ~Trainer();

  /// Forward, exact backward, clipping and one AdamW update over the whole batch. A loss that is not finite
  /// throws std::runtime_error and leaves the weights as they were. A bidirectional model calls `poll`, with
  /// tokens of the batch; what that throws leaves the weights too.
  StepResult step(std::span<const TrainingSequence> batch, double learning_rate, const Poll& poll = {});
  EvaluationResult evaluate(std::span<const TrainingSequence> batch, const Poll& poll = {});
  /// Gives the model the weights of the last step. Without it, the model has those of before on a GPU, while
  /// on a CPU it has them anyway.
  void update_model();
  /// Gradients of the last step, before clipping: of the loss summed (not averaged) over its targets. On the
  /// host; good until the next call.
  const ParameterStore& gradients() const;

  /// What, with the weights, a resumed run needs: [parameters] first and second moments, and the number of
  /// updates.
  struct State {
    std::vector<float> first_moment;
    std::vector<float> second_moment;
    std::int64_t updates = 0;
  };
  State state() const;
  void set_state(const State& state);

  /// Bytes held at their largest: gradients, moments, state, activations and scratch, and on a GPU the
  /// weights.
  std::size_t peak_bytes() const;

  class Engine;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace longstrand
