#include "kernels/pooling.hpp"

#include <limits>

#include "kernels/check.hpp"
#include "kernels/pooling_cpu.hpp"
#include "kernels/pooling_cuda.hpp"

namespace longstrand {

std::string pooling_name(Pooling pooling) {
  return pooling == Pooling::mean ? "mean" : pooling == Pooling::last ? "last" : "max";
}

Pooling parse_pooling(const std::string& name) {
  for (const Pooling pooling : {Pooling::mean, Pooling::last, Pooling::max}) {
    if (name == pooling_name(pooling)) return pooling;
  }
  throw std::invalid_argument("pooling \"" + name + "\": expected mean, last or max");
}

double pooling_identity(Pooling mode) {
  return mode == Pooling::max ? -std::numeric_limits<double>::infinity() : 0.0;
}

template <class T>
void pooling_forward(View<const T, 3> hidden, View<const std::int64_t, 1> valid, Pooling mode,
                     View<double, 2> pooled, Context& context) {
  const auto [lanes, tokens, channels] = hidden.shape;
  require_shape("pooling_forward: valid", valid, {lanes});
  require_shape("pooling_forward: hidden", hidden, {lanes, tokens, channels});
  require_shape("pooling_forward: pooled", pooled, {lanes, channels});
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) {
      return cuda::pooling_forward(hidden, valid, mode, pooled, context);
    }
  }
  cpu::pooling_forward(hidden, valid, mode, pooled);
}

template <class T>
void pooling_backward(View<const float, 2> d_pooled, View<const std::int64_t, 1> valid,
                      View<const std::uint8_t, 1> is_last, Pooling mode, View<T, 3> d_hidden,
                      Context& context) {
  const auto [lanes, tokens, channels] = d_hidden.shape;
  require_shape("pooling_backward: valid", valid, {lanes});
  require_shape("pooling_backward: d_hidden", d_hidden, {lanes, tokens, channels});
  require_shape("pooling_backward: d_pooled", d_pooled, {lanes, channels});
  require_shape("pooling_backward: is_last", is_last, {lanes}, mode == Pooling::mean);
  if (mode == Pooling::max) throw std::logic_error("pooling_backward: max has no backward");
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) {
      return cuda::pooling_backward(d_pooled, valid, is_last, mode, d_hidden, context);
    }
  }
  cpu::pooling_backward(d_pooled, valid, is_last, mode, d_hidden);
}

template void pooling_forward(View<const float, 3>, View<const std::int64_t, 1>, Pooling, View<double, 2>,
                              Context&);
template void pooling_forward(View<const bfloat16, 3>, View<const std::int64_t, 1>, Pooling, View<double, 2>,
                              Context&);
template void pooling_backward(View<const float, 2>, View<const std::int64_t, 1>, View<const std::uint8_t, 1>,
                               Pooling, View<float, 3>, Context&);
template void pooling_backward(View<const float, 2>, View<const std::int64_t, 1>, View<const std::uint8_t, 1>,
                               Pooling, View<bfloat16, 3>, Context&);

}  // namespace longstrand
