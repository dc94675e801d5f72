// The bidirectional Mamba-1 mixer (Caduceus; kuleshov-group/caduceus, modeling_caduceus.py, BiMambaWrapper):
// a Mamba-1 mixer that walks left to right, "mamba_fwd.", and one that walks right to left, "mamba_rev.".
//
// Each direction has parameters of its own, but for in_proj and out_proj where the config ties them: then
// only mamba_fwd's exist, and both directions use them.
#pragma once

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "src/mamba1.hpp"
#include "src/mixer.hpp"

namespace longstrand {

std::vector<ParameterSpec> declare_bimamba1(const ModelConfig& config, const std::string& prefix);
/// Each direction as Mamba-1.
void initialise_bimamba1(const ModelConfig& config, const std::string& prefix, ParameterStore& weights,
                         std::mt19937_64& random);

template <class T>
class BiMamba1 final : public Mixer<T> {
 public:
  using typename Mixer<T>::Saved;

  BiMamba1(const ModelConfig& config, const std::string& prefix, const ParameterStore& weights);

  std::int64_t state_floats() const override { return left_to_right_.state_floats(); }
  std::int64_t projected_width() const override { return left_to_right_.projected_width(); }
  std::int64_t inner_width() const override { return left_to_right_.inner_width(); }
  bool shares_projections() const override { return tied_; }
  std::int64_t saved_bytes_per_token() const override { return left_to_right_.saved_bytes_per_token(); }
  std::int64_t trail_floats(std::int64_t lanes, std::int64_t tokens, Context& context) const override {
    return left_to_right_.trail_floats(lanes, tokens, context);
  }
  void prepare(bool for_backward, Context& context) override;
  void project(Direction direction, View<const T, 3> x, View<T, 3> projected,
               Context& context) const override;
  std::unique_ptr<Saved> forward(Direction direction, View<const T, 3> projected, View<float, 2> state,
                                 View<const std::int64_t, 1> valid, const MixerOutput<T>& output, Arena* keep,
                                 const Trail& trail, Context& context) const override;
  std::unique_ptr<Saved> project_and_forward(Direction direction, View<const T, 3> x, View<T, 3> projected,
                                             View<float, 2> state, View<const std::int64_t, 1> valid,
                                             const MixerOutput<T>& output, Arena* keep, const Trail& trail,
                                             Context& context) const override;
  void project_output(Direction direction, View<const T, 3> inner, const MixerOutput<T>& output,
                      Context& context) const override;
  void backward(Direction direction, View<const T, 3> projected, const Saved& saved, View<const T, 3> d_y,
                View<const std::int64_t, 1> valid, View<float, 2> d_state, View<T, 3> d_projected,
                ParameterStore& gradients, Context& context) const override;
  void project_backward(Direction direction, View<const T, 3> x, View<const T, 3> d_projected, View<T, 3> d_x,
                        ParameterStore& gradients, Context& context) const override;

 private:
  const Mamba1<T>& of(Direction direction) const {
    return direction == Direction::forward ? left_to_right_ : right_to_left_;
  }

  bool tied_;
  Mamba1<T> left_to_right_, right_to_left_;
};

}  // namespace longstrand
