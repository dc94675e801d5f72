#include "kernels/adamw.hpp"

#include "kernels/adamw_cpu.hpp"
#include "kernels/adamw_cuda.hpp"
#include "kernels/check.hpp"

namespace longstrand {

void adamw_step(View<float, 1> weight, View<const float, 1> gradient, View<float, 1> m, View<float, 1> v,
                const AdamWOptions& options, Context& context) {
  const std::int64_t count = weight.shape[0];
  require_shape("adamw_step: gradient", gradient, {count});
  require_shape("adamw_step: m", m, {count});
  require_shape("adamw_step: v", v, {count});
  assert(options.step >= 1);
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) {
      return cuda::adamw_step(weight, gradient, m, v, options, context);
    }
  }
  if constexpr (kCpuBuilt) return cpu::adamw_step(weight, gradient, m, v, options);
  throw NoCpuBackend();
}

double sum_of_squares(View<const float, 1> values, Context& context) {
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) return cuda::sum_of_squares(values, context);
  }
  if constexpr (kCpuBuilt) return cpu::sum_of_squares(values);
  throw NoCpuBackend();
}

}  // namespace longstrand
