#include "kernels/causal_conv.hpp"

#include "kernels/causal_conv_cpu.hpp"
#include "kernels/causal_conv_cuda.hpp"
#include "kernels/check.hpp"

namespace longstrand {
namespace {

template <class T>
void check_input(const CausalConvInput<T>& input) {
  const auto [lanes, tokens, channels] = input.x.shape;
  const std::int64_t taps = input.weight.shape[1];
  if (taps < kFewestConvTaps || taps > kMostConvTaps) {
    throw std::logic_error(
        concat("causal conv: ", taps, " taps; ", kFewestConvTaps, " to ", kMostConvTaps, " can be computed"));
  }
  require_shape("causal conv: x", input.x, {lanes, tokens, channels});
  require_shape("causal conv: weight", input.weight, {channels, taps});
  require_shape("causal conv: bias", input.bias, {channels});
  require_shape("causal conv: state", input.state, {lanes, taps - 1, channels});
  require_shape("causal conv: valid", input.valid, {lanes});
}

}  // namespace

template <class T>
void causal_conv_forward(const CausalConvInput<T>& input, View<T, 3> out, View<float, 3> state,
                         Context& context) {
  const auto [lanes, tokens, channels] = input.x.shape;
  check_input(input);
  require_shape("causal conv: out", out, {lanes, tokens, channels});
  require_shape("causal conv: final state", state, {lanes, input.weight.shape[1] - 1, channels});
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) return cuda::causal_conv_forward(input, out, state, context);
  }
  if constexpr (kCpuBuilt) return cpu::causal_conv_forward(input, out, state);
  throw NoCpuBackend();
}

template <class T>
void causal_conv_backward(const CausalConvInput<T>& input, const CausalConvGradient<T>& gradient,
                          Context& context) {
  const auto [lanes, tokens, channels] = input.x.shape;
  const std::int64_t taps = input.weight.shape[1];
  check_input(input);
  require_shape("causal conv: d_out", gradient.d_out, {lanes, tokens, channels});
  require_shape("causal conv: d_x", gradient.d_x, {lanes, tokens, channels});
  require_shape("causal conv: d_weight", gradient.d_weight, {channels, taps});
  require_shape("causal conv: d_bias", gradient.d_bias, {channels});
  require_shape("causal conv: d_state", gradient.d_state, {lanes, taps - 1, channels});
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) return cuda::causal_conv_backward(input, gradient, context);
  }
  if constexpr (kCpuBuilt) return cpu::causal_conv_backward(input, gradient);
  throw NoCpuBackend();
}

template void causal_conv_forward(const CausalConvInput<float>&, View<float, 3>, View<float, 3>, Context&);
template void causal_conv_forward(const CausalConvInput<bfloat16>&, View<bfloat16, 3>, View<float, 3>,
                                  Context&);
template void causal_conv_backward(const CausalConvInput<float>&, const CausalConvGradient<float>&, Context&);
template void causal_conv_backward(const CausalConvInput<bfloat16>&, const CausalConvGradient<bfloat16>&,
                                   Context&);

}  // namespace longstrand
