// The end of a training model: final norm, predictions, loss, and their gradients, a chunk at a time. Chunks
// of a bundle come in any order that the methods' comments allow; one call at a time.
#pragma once

#include <memory>

#include "src/backbone.hpp"
#include "src/bundles.hpp"
#include "src/trainer_engine.hpp"

namespace longstrand {

/// A chunk of one bundle, on its way through the model. Views lie on the model's device. L lanes: one for
/// each of the bundle's or, of a model of both strands, two.
struct TrainingChunk {
  const Bundle* bundle = nullptr;
  std::int64_t index = 0;  // in the bundle
  bool first = false;      // of its bundle
  bool last = false;
  View<const std::uint8_t, 2> tokens;  // [L, T]
  View<const std::int64_t, 1> valid;   // [L]
  View<const std::int32_t, 1> next;    // [L]  causal: the token after the lane's part of the chunk; -1 behind
                                       //      the last
  View<const std::uint8_t, 1> ends;    // [L]  1 where the lane's last token is in this chunk
  View<const std::int32_t, 3> targets;  // [chunks, L, T]  bidirectional: of the whole bundle
  View<const std::int64_t, 1> length;   // [L]             bidirectional: of the whole bundle
};

template <class T>
class TrainingHead {
 public:
  virtual ~TrainingHead() = default;

  /// Whether the loss is known only after all of a sequence has been seen: then forward() is called for all
  /// chunks of a bundle, first to last, before backward() is for any. Bundles of a single chunk go to
  /// backward() alone.
  virtual bool needs_whole_sequence() const = 0;
  /// Adds the chunk's loss to totals(); normed [L, T, D] is behind the final norm.
  virtual void forward(const TrainingChunk& chunk, View<const T, 3> normed, Context& context) = 0;
  /// As forward (but for what forward has seen), of the last layer's residual and hidden, [L, T, D]; then
  /// turns hidden into the gradient of that layer's output and writes that of the residual.
  virtual void backward(const TrainingChunk& chunk, View<const float, 3> residual, View<T, 3> hidden,
                        View<float, 3> d_residual, Context& context) = 0;

  /// Starts a batch of so many lanes. With `gradients`, they are added to; the head's own by finish_batch at
  /// the latest.
  virtual void start_batch(std::int64_t lanes, ParameterStore* gradients, Context& context) = 0;
  virtual void finish_batch(Context& context) = 0;
  /// Of the chunks since start_batch.
  virtual BatchTotals totals(Context& context) const = 0;
  virtual void weights_changed(const ParameterStore& weights, Context& context) = 0;
  /// Held at their largest, weights and scratch aside.
  virtual std::size_t size_bytes() const = 0;
};

/// `weights` are those that `backbone` has; both must outlive the head.
template <class T>
std::unique_ptr<TrainingHead<T>> make_training_head(const Model& model, const ParameterStore& weights,
                                                    const Backbone<T>& backbone,
                                                    const TrainerOptions& options, Context& context);

}  // namespace longstrand
