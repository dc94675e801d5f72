// The end of a training model: final norm, predictions, loss, and their gradients, a chunk at a time. Chunks
// of a sequence come in any order that the methods' comments allow; one call at a time.
#pragma once

#include <memory>
#include <vector>

#include "src/backbone.hpp"
#include "src/trainer_engine.hpp"

namespace longstrand {

/// A chunk of one training sequence, on its way through the model.
struct TrainingChunk {
  const TrainingSequence* sequence = nullptr;
  std::int64_t sequence_index = 0;  // within the batch
  bool first = false;               // of its sequence
  bool last = false;
  View<const std::uint8_t, 2> tokens;  // [1, T]
  View<const std::int64_t, 1> valid;   // [1]  T
  std::int32_t next_token = -1;        // the token after the chunk; -1 behind the last
};

template <class T>
class TrainingHead {
 public:
  virtual ~TrainingHead() = default;

  /// Whether the loss is known only after all of a sequence has been seen: then forward() is called for all
  /// its chunks, first to last, before backward() is for any. Sequences of a single chunk go to backward()
  /// alone.
  virtual bool needs_whole_sequence() const = 0;
  /// Adds the chunk's loss to totals(). Takes over residual and hidden, [1, T, D], of the last layer.
  virtual void forward(const TrainingChunk& chunk, View<float, 3> residual, View<const T, 3> hidden,
                       Context& context) = 0;
  /// As forward (but for what forward has seen), then turns hidden into the gradient of the last layer's
  /// output and writes that of the residual.
  virtual void backward(const TrainingChunk& chunk, View<float, 3> residual, View<T, 3> hidden,
                        View<float, 3> d_residual, Context& context) = 0;

  /// Starts a batch. With `gradients`, they are added to; the head's own by finish_batch at the latest.
  virtual void start_batch(std::size_t sequences, ParameterStore* gradients) = 0;
  virtual void finish_batch() = 0;
  const BatchTotals& totals() const { return totals_; }

 protected:
  BatchTotals totals_;
};

template <class T>
std::unique_ptr<TrainingHead<T>> make_training_head(const Model& model, const Backbone<T>& backbone,
                                                    const TrainerOptions& options);

}  // namespace longstrand
