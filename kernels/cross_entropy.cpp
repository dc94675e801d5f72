#include "kernels/cross_entropy.hpp"

#include "kernels/check.hpp"
#include "kernels/cross_entropy_cpu.hpp"
#include "kernels/cross_entropy_cuda.hpp"

namespace longstrand {
namespace {

void check_shapes(const CrossEntropyInput& input) {
  const auto [rows, classes] = input.logits.shape;
  require_shape("cross entropy: logits", input.logits, {rows, classes});
  require_shape("cross entropy: target", input.target, {rows});
  require_shape("cross entropy: weight", input.weight, {rows}, true);
}

void check_targets(const CrossEntropyInput& input) {
  const auto [rows, classes] = input.logits.shape;
  for (std::int64_t m = 0; m < rows; ++m) {
    const std::int32_t target = input.target.data[m];
    if (target == kNoTarget || (target >= 0 && target < classes)) continue;
    throw std::logic_error(
        concat("cross entropy: target ", target, " of row ", m, " is none of the ", classes, " classes"));
  }
}

}  // namespace

void cross_entropy_forward(const CrossEntropyInput& input, View<float, 1> loss, Context& context) {
  check_shapes(input);
  require_shape("cross_entropy_forward: loss", loss, {input.logits.shape[0]});
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) return cuda::cross_entropy_forward(input, loss, context);
  }
  check_targets(input);
  if constexpr (kCpuBuilt) return cpu::cross_entropy_forward(input, loss);
  throw NoCpuBackend();
}

template <class T>
void cross_entropy_backward(const CrossEntropyInput& input, float scale, View<float, 1> loss,
                            View<T, 2> d_logits, Context& context) {
  const auto [rows, classes] = input.logits.shape;
  check_shapes(input);
  require_shape("cross_entropy_backward: loss", loss, {rows});
  require_shape("cross_entropy_backward: d_logits", d_logits, {rows, classes});
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) {
      return cuda::cross_entropy_backward(input, scale, loss, d_logits, context);
    }
  }
  check_targets(input);
  if constexpr (kCpuBuilt) return cpu::cross_entropy_backward(input, scale, loss, d_logits);
  throw NoCpuBackend();
}

void cross_entropy_totals(const CrossEntropyInput& input, View<const float, 1> loss, View<double, 1> totals,
                          Context& context) {
  check_shapes(input);
  require_shape("cross_entropy_totals: loss", loss, {input.logits.shape[0]});
  require_shape("cross_entropy_totals: totals", totals, {3});
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) {
      return cuda::cross_entropy_totals(input, loss, totals, context);
    }
  }
  check_targets(input);
  if constexpr (kCpuBuilt) return cpu::cross_entropy_totals(input, loss, totals);
  throw NoCpuBackend();
}

template void cross_entropy_backward(const CrossEntropyInput&, float, View<float, 1>, View<float, 2>,
                                     Context&);
template void cross_entropy_backward(const CrossEntropyInput&, float, View<float, 1>, View<bfloat16, 2>,
                                     Context&);

}  // namespace longstrand
