// The Mamba-1 mixer (Gu & Dao 2023; tensors as in state-spaces/mamba, modules/mamba_simple.py):
//
//   x, z  = in_proj(input)
//   u     = silu(conv1d(x))
//   r,B,C = x_proj(u);   dt = softplus(dt_proj(r))
//   y     = selective_scan(u, dt, A, B, C, D) silu(z);   output = out_proj(y)
//
// Recurrent state per lane: the convolution's last d_conv - 1 inputs, then the scan's state, [d_state,
// d_inner].
#pragma once

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/causal_conv.hpp"
#include "kernels/linear.hpp"
#include "kernels/selective_scan.hpp"
#include "src/mixer.hpp"

namespace longstrand {

std::vector<ParameterSpec> declare_mamba1(const ModelConfig& config, const std::string& prefix);
void initialise_mamba1(const ModelConfig& config, const std::string& prefix, ParameterStore& weights,
                       std::mt19937_64& random);

/// Brings the inner channels of the mixer in an order that suits a GPU's scan. The mixer stays the same.
void sort_mamba1_channels(const ModelConfig& config, const std::string& prefix, ParameterStore& weights);

template <class T>
class Mamba1 final : public Mixer<T> {
 public:
  using typename Mixer<T>::Saved;

  /// `projections`: the mixer whose in_proj and out_proj this one uses; it must outlive this one and be
  /// prepared as well. nullptr: it has its own.
  Mamba1(const ModelConfig& config, std::string prefix, const ParameterStore& weights,
         const Mamba1* projections = nullptr);
  Mamba1(const Mamba1&) = delete;
  Mamba1& operator=(const Mamba1&) = delete;

  std::int64_t state_floats() const override { return (d_conv_ - 1 + d_state_) * d_inner_; }
  std::int64_t projected_width() const override { return 2 * d_inner_; }
  std::int64_t inner_width() const override { return d_inner_; }
  bool shares_projections() const override { return true; }
  std::int64_t saved_bytes_per_token() const override;
  std::int64_t trail_floats(std::int64_t lanes, std::int64_t tokens, Context& context) const override;
  void prepare(bool for_backward, Context& context) override;
  void project(Direction direction, View<const T, 3> x, View<T, 3> projected,
               Context& context) const override;
  std::unique_ptr<Saved> forward(Direction direction, View<const T, 3> projected, View<float, 2> state,
                                 View<const std::int64_t, 1> valid, const MixerOutput<T>& output, Arena* keep,
                                 const Trail& trail, Context& context) const override;
  void project_output(Direction direction, View<const T, 3> inner, const MixerOutput<T>& output,
                      Context& context) const override;
  std::unique_ptr<Saved> project_and_forward(Direction direction, View<const T, 3> x, View<T, 3> projected,
                                             View<float, 2> state, View<const std::int64_t, 1> valid,
                                             const MixerOutput<T>& output, Arena* keep, const Trail& trail,
                                             Context& context) const override;
  void backward(Direction direction, View<const T, 3> projected, const Saved& saved, View<const T, 3> d_y,
                View<const std::int64_t, 1> valid, View<float, 2> d_state, View<T, 3> d_projected,
                ParameterStore& gradients, Context& context) const override;
  void project_backward(Direction direction, View<const T, 3> x, View<const T, 3> d_projected, View<T, 3> d_x,
                        ParameterStore& gradients, Context& context) const override;

 private:
  struct Activations;
  Activations take_activations(std::int64_t lanes, std::int64_t tokens, const MixerOutput<T>& output,
                               bool for_backward, Arena& arena) const;
  template <class E>
  View<E, 3> z_of(View<E, 3> projected) const {
    return projected.columns(d_inner_, d_inner_);
  }
  View<float, 4> segment_states(const Trail& trail, std::int64_t lanes, std::int64_t tokens,
                                Context& context) const;  // [segments, B, d_state, d_inner]
  View<float, 3> conv_state(View<float, 2> state) const;  // [B, d_conv - 1, d_inner]
  View<float, 3> scan_state(View<float, 2> state) const;  // [B, d_state, d_inner]
  void convolve(Direction direction, View<const T, 3> projected, const Activations& a, View<float, 2> state,
                View<const std::int64_t, 1> valid, Context& context) const;
  /// What follows the convolution, from a.u on.
  void scan_and_project(Direction direction, View<const T, 3> z, const Activations& a, View<float, 2> state,
                        View<const std::int64_t, 1> valid, const MixerOutput<T>& output, const Trail& trail,
                        Context& context) const;
  CausalConvInput<T> conv_input(Direction direction, View<const T, 3> projected, View<const float, 3> state,
                                View<const std::int64_t, 1> valid) const;
  SelectiveScanInput<T> scan_input(Direction direction, View<const T, 3> z, const Activations& a,
                                   View<const float, 3> state, View<const std::int64_t, 1> valid) const;

  std::int64_t d_inner_, d_state_, d_conv_, dt_rank_;
  std::string prefix_;
  const Mamba1* projections_;  // whose in_proj and out_proj it uses; may be itself
  View<const float, 2> in_proj_weight_, conv_weight_, x_proj_weight_, dt_proj_weight_, a_log_,
      out_proj_weight_;
  View<const float, 1> conv_bias_, dt_proj_bias_, d_;
  PackedLinear<T> in_proj_, x_proj_, dt_proj_, out_proj_;
  Array<float, 2> decay_;  // [d_state, d_inner]
};

}  // namespace longstrand
