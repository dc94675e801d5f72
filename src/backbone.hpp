// The blocks of a model, one call a layer and chunk, so that a sweep decides their order. A layer-major sweep
// calls a layer's norm and its mixer, in either direction, on their own:
//
//   embed:  residual = E[tokens]
//   layer:  residual += hidden (from the layer before);  hidden = mixer(RMSNorm(residual))
//   finish: residual += hidden;  out = RMSNorm(residual)
//
// Where nothing is kept for backward, a layer ends with the next norm, whose operands are at hand:
//
//   embed:  residual = E[tokens];  normed = RMSNorm(residual)
//   layer:  residual += mixer(normed);  normed = RMSNorm(residual), in the end the final one
//
// residual [B, T, D] is float, hidden and normed [B, T, D] are T. Backward, d_residual and d_hidden hold the
// gradients of both on the way down. Recurrent state lives with the caller: [B, state_floats()] per layer.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "kernels/linear.hpp"
#include "kernels/memory.hpp"
#include "kernels/rms_norm.hpp"
#include "src/mixer.hpp"
#include "src/model.hpp"

namespace longstrand {

/// Weights of the host on the context's GPU, each layer's channels in the order in which it is quickest; or
/// nothing on a CPU, which takes them as they are.
std::optional<ParameterStore> copy_sorted_to_gpu(const ModelConfig& config, const ParameterStore& weights,
                                                 Context& context);

template <class T>
class Backbone {
 public:
  /// `weights`, of a model of that shape and on the context's device, must outlive it. `for_backward`:
  /// gradients will be asked for.
  Backbone(const ModelConfig& config, const ParameterStore& weights, bool for_backward, Context& context);
  /// After every change of the weights.
  void prepare(Context& context);

  int layers() const { return static_cast<int>(mixers_.size()); }
  std::int64_t d_model() const { return d_model_; }
  std::int64_t vocabulary() const { return embedding_.shape[0]; }
  std::int64_t state_floats() const;
  /// About what all layers keep of a token for backward.
  std::int64_t saved_bytes_per_token() const;

  /// What backward needs of one layer and chunk.
  struct Saved {
    View<const float, 3> residual;
    View<T, 3> normed, projected;
    std::unique_ptr<typename Mixer<T>::Saved> mixer;
  };

  const Mixer<T>& mixer(int index) const { return *mixers_[index]; }

  void embed(View<const std::uint8_t, 2> tokens, View<float, 3> residual, Context& context) const;
  /// And norms it for layer 0.
  void embed(View<const std::uint8_t, 2> tokens, View<float, 3> residual, View<T, 3> normed,
             Context& context) const;
  /// `total` receives the residual with hidden added or subtracted, and may be `residual`, which stays where
  /// hidden is empty. normed = RMSNorm(total), with the layer's weight or, for index layers(), the final one.
  void norm(int index, View<const float, 3> residual, View<const T, 3> hidden, View<float, 3> total,
            View<T, 3> normed, Context& context, Hidden change = Hidden::add) const;
  /// What brings the output of layer index - 1 into `residual` and norms that as norm(index, ...) does.
  ResidualNorm<T> residual_norm(int index, View<float, 3> residual, View<T, 3> normed) const;
  /// residual in: what the layer takes; out: with its output added. normed: of the same, out by the norm of
  /// the next layer or, of the last one, the final norm. `trail`: of the mixer's walk.
  void layer(int index, View<float, 3> residual, View<T, 3> normed, View<float, 2> state,
             View<const std::int64_t, 1> valid, const Trail& trail, Context& context) const;
  /// Of saved.residual and saved.normed, which norm() has made; the rest of `saved`, what backward needs
  /// besides, goes to `keep`.
  void layer_kept(int index, Saved& saved, const MixerOutput<T>& output, View<float, 2> state,
                  View<const std::int64_t, 1> valid, Arena& keep, const Trail& trail, Context& context) const;
  /// below: the output of the layer before, which residual receives, or empty where it has it, as that of
  /// layer 0 always has.
  void layer_output(int index, View<float, 3> residual, View<const T, 3> below, View<T, 3> out,
                    View<float, 2> state, View<const std::int64_t, 1> valid, const Trail& trail,
                    Context& context) const;
  /// The final norm.
  void finish(View<const float, 3> residual, View<const T, 3> hidden, View<float, 3> total, View<T, 3> out,
              Context& context) const;
  struct Finished {
    View<float, 3> total;
    View<T, 3> out;
  };
  /// The same into the context's scratch memory.
  Finished finish(View<const float, 3> residual, View<const T, 3> hidden, Context& context) const;
  /// [M, D] -> [M, V]
  void logits(View<const T, 2> hidden, View<float, 2> logits, Context& context) const;

  /// d_residual in: gradient of `total` from above; out: with the norm's added; d_hidden receives it as T.
  void norm_backward(int index, View<const float, 3> total, View<const T, 3> d_normed,
                     View<float, 3> d_residual, View<T, 3> d_hidden, ParameterStore& gradients,
                     Context& context) const;
  /// d_hidden in: gradient of the layer's output; out: of the output of the layer before. d_residual
  /// likewise.
  void layer_backward(int index, const Saved& saved, View<float, 3> d_residual, View<T, 3> d_hidden,
                      View<float, 2> d_state, View<const std::int64_t, 1> valid, ParameterStore& gradients,
                      Context& context) const;
  /// d_residual and d_hidden are overwritten. `total` as of finish.
  void finish_backward(View<const float, 3> total, View<T, 3> d_out, View<float, 3> d_residual,
                       View<T, 3> d_hidden, ParameterStore& gradients, Context& context) const;
  /// d_logits [M, V] -> d_hidden [M, D], overwritten; d_weight [V, D] accumulated.
  void logits_backward(View<const T, 2> hidden, View<const T, 2> d_logits, View<T, 2> d_hidden,
                       View<float, 2> d_weight, Context& context) const;
  void embed_backward(View<const std::uint8_t, 2> tokens, View<const float, 3> d_residual,
                      ParameterStore& gradients, Context& context) const;

 private:
  std::int64_t d_model_;
  float norm_epsilon_;
  bool for_backward_;
  View<const float, 2> embedding_, lm_head_weight_;
  std::vector<View<const float, 1>> norm_weights_;  // of each layer, then the final one
  std::vector<std::unique_ptr<Mixer<T>>> mixers_;
  PackedLinear<T> lm_head_;
  Array<T, 2> normed_embedding_;  // [V, D]  as layer 0 takes it
};

}  // namespace longstrand
