#include "src/bimamba.hpp"

namespace longstrand {

std::vector<ParameterSpec> declare_bimamba1(const ModelConfig& config, const std::string& prefix) {
  std::vector<ParameterSpec> specs = declare_mamba1(config, prefix + "mamba_fwd.");
  for (ParameterSpec& spec : declare_mamba1(config, prefix + "mamba_rev.")) {
    const bool tied = spec.name.ends_with(".in_proj.weight") || spec.name.ends_with(".out_proj.weight");
    if (!(tied && config.tie_directions)) specs.push_back(std::move(spec));
  }
  return specs;
}

void initialise_bimamba1(const ModelConfig& config, const std::string& prefix, ParameterStore& weights,
                         std::mt19937_64& random) {
  initialise_mamba1(config, prefix + "mamba_fwd.", weights, random);
  initialise_mamba1(config, prefix + "mamba_rev.", weights, random);
}

template <class T>
BiMamba1<T>::BiMamba1(const ModelConfig& config, const std::string& prefix, const ParameterStore& weights)
    : tied_(config.tie_directions),
      left_to_right_(config, prefix + "mamba_fwd.", weights),
      right_to_left_(config, prefix + "mamba_rev.", weights,
                     config.tie_directions ? &left_to_right_ : nullptr) {}

template <class T>
void BiMamba1<T>::prepare(bool for_backward, Context& context) {
  left_to_right_.prepare(for_backward, context);
  right_to_left_.prepare(for_backward, context);
}

template <class T>
void BiMamba1<T>::project(Direction direction, View<const T, 3> x, View<T, 3> projected,
                          Context& context) const {
  of(direction).project(direction, x, projected, context);
}

template <class T>
auto BiMamba1<T>::forward(Direction direction, View<const T, 3> projected, View<float, 2> state,
                          View<const std::int64_t, 1> valid, const MixerOutput<T>& output, Arena* keep,
                          const Trail& trail, Context& context) const -> std::unique_ptr<Saved> {
  return of(direction).forward(direction, projected, state, valid, output, keep, trail, context);
}

template <class T>
auto BiMamba1<T>::project_and_forward(Direction direction, View<const T, 3> x, View<T, 3> projected,
                                      View<float, 2> state, View<const std::int64_t, 1> valid,
                                      const MixerOutput<T>& output, Arena* keep, const Trail& trail,
                                      Context& context) const -> std::unique_ptr<Saved> {
  return of(direction).project_and_forward(direction, x, projected, state, valid, output, keep, trail,
                                           context);
}

template <class T>
void BiMamba1<T>::project_output(Direction direction, View<const T, 3> inner, const MixerOutput<T>& output,
                                 Context& context) const {
  of(direction).project_output(direction, inner, output, context);
}

template <class T>
void BiMamba1<T>::backward(Direction direction, View<const T, 3> projected, const Saved& saved,
                           View<const T, 3> d_y, View<const std::int64_t, 1> valid, View<float, 2> d_state,
                           View<T, 3> d_projected, ParameterStore& gradients, Context& context) const {
  of(direction).backward(direction, projected, saved, d_y, valid, d_state, d_projected, gradients, context);
}

template <class T>
void BiMamba1<T>::project_backward(Direction direction, View<const T, 3> x, View<const T, 3> d_projected,
                                   View<T, 3> d_x, ParameterStore& gradients, Context& context) const {
  of(direction).project_backward(direction, x, d_projected, d_x, gradients, context);
}

template class BiMamba1<float>;
template class BiMamba1<bfloat16>;

}  // namespace longstrand
