#include "kernels/elementwise.hpp"

#include <algorithm>
#include <functional>

#include "kernels/check.hpp"
#include "kernels/elementwise_cuda.hpp"

namespace longstrand {

template <class From, class To>
void convert(View<const From, 2> from, View<To, 2> to, Context& context) {
  require_shape<To, 2>("convert: to", to, from.shape);
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) return cuda::convert(from, to, context);
  }
  for (std::int64_t m = 0; m < from.shape[0]; ++m) {
    std::transform(from.at(m), from.at(m) + from.shape[1], to.at(m),
                   [](From value) { return static_cast<To>(value); });
  }
}

void add(View<const float, 1> from, View<float, 1> to, Context& context) {
  require_shape<float, 1>("add: to", to, from.shape);
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) return cuda::add(from, to, context);
  }
  std::transform(to.data, to.data + to.size(), from.data, to.data, std::plus<>());
}

template <class T>
void fill_marked_rows(View<T, 2> to, View<const std::uint8_t, 1> marked, std::type_identity_t<T> value,
                      Context& context) {
  require_shape("fill_marked_rows: marked", marked, {to.shape[0]});
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) return cuda::fill_marked_rows(to, marked, value, context);
  }
  for (std::int64_t m = 0; m < to.shape[0]; ++m) {
    if (marked.data[m] != 0) std::fill_n(to.at(m), to.shape[1], value);
  }
}

template void convert(View<const bfloat16, 2>, View<float, 2>, Context&);
template void convert(View<const double, 2>, View<float, 2>, Context&);
template void fill_marked_rows(View<float, 2>, View<const std::uint8_t, 1>, float, Context&);
template void fill_marked_rows(View<double, 2>, View<const std::uint8_t, 1>, double, Context&);

}  // namespace longstrand
