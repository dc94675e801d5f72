#include "kernels/rms_norm.hpp"

#include "kernels/check.hpp"
#include "kernels/partial_sum.hpp"
#include "kernels/rms_norm_cpu.hpp"
#include "kernels/rms_norm_cuda.hpp"

namespace longstrand {

template <class T>
void rms_norm_forward(View<const float, 2> residual, View<const T, 2> hidden, View<const float, 1> weight,
                      float epsilon, const RmsNormOutput<T>& output, Context& context, Hidden change) {
  const auto [rows, channels] = residual.shape;
  require_shape("rms_norm_forward: residual", residual, {rows, channels});
  require_shape("rms_norm_forward: hidden", hidden, {rows, channels}, true);
  require_shape("rms_norm_forward: weight", weight, {channels});
  require_shape("rms_norm_forward: residual out", output.residual, {rows, channels});
  require_shape("rms_norm_forward: normed", output.normed, {rows, channels});
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) {
      return cuda::rms_norm_forward(residual, hidden, weight, epsilon, output, context, change);
    }
  }
  if constexpr (kCpuBuilt) return cpu::rms_norm_forward(residual, hidden, weight, epsilon, output, change);
  throw NoCpuBackend();
}

template <class T>
void rms_norm_backward(View<const float, 2> residual, View<const float, 1> weight, float epsilon,
                       const RmsNormGradient<T>& gradient, Context& context) {
  const auto [rows, channels] = residual.shape;
  require_shape("rms_norm_backward: residual", residual, {rows, channels});
  require_shape("rms_norm_backward: weight", weight, {channels});
  require_shape("rms_norm_backward: d_out", gradient.d_out, {rows, channels});
  require_shape("rms_norm_backward: d_residual", gradient.d_residual, {rows, channels});
  require_shape("rms_norm_backward: d_hidden", gradient.d_hidden, {rows, channels});
  require_shape("rms_norm_backward: d_weight", gradient.d_weight, {channels});
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) {
      return cuda::rms_norm_backward(residual, weight, epsilon, gradient, context);
    }
  }
  const PartialSum<1> d_weight(gradient.d_weight, context);
  RmsNormGradient<T> of_call = gradient;
  of_call.d_weight = d_weight.view();
  if constexpr (kCpuBuilt) return cpu::rms_norm_backward(residual, weight, epsilon, of_call);
  throw NoCpuBackend();
}

template void rms_norm_forward(View<const float, 2>, View<const float, 2>, View<const float, 1>, float,
                               const RmsNormOutput<float>&, Context&, Hidden);
template void rms_norm_forward(View<const float, 2>, View<const bfloat16, 2>, View<const float, 1>, float,
                               const RmsNormOutput<bfloat16>&, Context&, Hidden);
template void rms_norm_backward(View<const float, 2>, View<const float, 1>, float,
                                const RmsNormGradient<float>&, Context&);
template void rms_norm_backward(View<const float, 2>, View<const float, 1>, float,
                                const RmsNormGradient<bfloat16>&, Context&);

}  // namespace longstrand
