// How a Trainer computes gradients inside: one engine a sweep and element type.
#pragma once

#include <memory>

#include "src/trainer.hpp"

namespace longstrand {

/// Sums over the targets of a batch.
struct BatchTotals {
  double loss = 0;
  std::int64_t targets = 0;
  std::int64_t correct = 0;  // the most probable class was the target
};

class Trainer::Engine {
 public:
  virtual ~Engine() = default;
  /// The weights that are computed with: the model's own on a CPU, a copy on a GPU.
  virtual ParameterStore& weights() = 0;
  /// Adds the gradients of the summed loss to `gradients`, which lie where the weights do.
  virtual BatchTotals accumulate(std::span<const TrainingSequence> batch, ParameterStore& gradients,
                                 const Poll& poll) = 0;
  virtual BatchTotals evaluate(std::span<const TrainingSequence> batch, const Poll& poll) = 0;
  virtual void weights_changed() = 0;
  virtual Context& context() = 0;
  virtual std::size_t peak_bytes() const = 0;
};

/// For mixers of Sweep::chunk_major.
std::unique_ptr<Trainer::Engine> make_chunk_major_trainer(Model& model, const ExecutionOptions& execution,
                                                          const TrainerOptions& options);
/// For mixers of Sweep::layer_major.
std::unique_ptr<Trainer::Engine> make_layer_major_trainer(Model& model, const ExecutionOptions& execution,
                                                          const TrainerOptions& options);

}  // namespace longstrand
