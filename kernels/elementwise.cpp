#include "kernels/elementwise.hpp"

#include <algorithm>

#include "kernels/check.hpp"
#include "kernels/elementwise_cuda.hpp"

namespace longstrand {
namespace {

template <class To, class From>
To sum(To a, From b) {
  return static_cast<To>(static_cast<float>(a) + static_cast<float>(b));
}

template <class T>
T product(T a, T b) {
  return static_cast<T>(static_cast<float>(a) * static_cast<float>(b));
}

}  // namespace

template <class From, class To>
void convert(View<const From, 2> from, View<To, 2> to, Context& context) {
  require_shape<To, 2>("convert: to", to, from.shape);
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) return cuda::convert(from, to, context);
  }
  for (std::int64_t m = 0; m < from.shape[0]; ++m) {
    std::transform(from.at(m), from.at(m) + from.shape[1], to.at(m),
                   [](From value) { return static_cast<To>(static_cast<float>(value)); });
  }
}

template <class From, class To>
void add(View<const From, 2> from, View<To, 2> to, Context& context) {
  require_shape<To, 2>("add: to", to, from.shape);
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) return cuda::add(from, to, context);
  }
  for (std::int64_t m = 0; m < to.shape[0]; ++m) {
    std::transform(to.at(m), to.at(m) + to.shape[1], from.at(m), to.at(m), sum<To, From>);
  }
}

template <class T>
void multiply(View<const T, 2> from, View<T, 2> to, Context& context) {
  require_shape<T, 2>("multiply: to", to, from.shape);
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) return cuda::multiply(from, to, context);
  }
  for (std::int64_t m = 0; m < to.shape[0]; ++m) {
    std::transform(to.at(m), to.at(m) + to.shape[1], from.at(m), to.at(m), product<T>);
  }
}

template <class T>
void multiply_backward(View<const T, 2> a, View<const T, 2> b, View<const T, 2> d_product, View<T, 2> d_a,
                       View<T, 2> d_b, Context& context) {
  require_shape<const T, 2>("multiply: b", b, a.shape);
  require_shape<const T, 2>("multiply: d_product", d_product, a.shape);
  require_shape<T, 2>("multiply: d_a", d_a, a.shape);
  require_shape<T, 2>("multiply: d_b", d_b, a.shape);
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) {
      return cuda::multiply_backward(a, b, d_product, d_a, d_b, context);
    }
  }
  for (std::int64_t m = 0; m < a.shape[0]; ++m) {
    for (std::int64_t d = 0; d < a.shape[1]; ++d) {
      const T slope = d_product.at(m)[d];
      d_a.at(m)[d] = product(slope, b.at(m)[d]);
      d_b.at(m)[d] = product(slope, a.at(m)[d]);
    }
  }
}

template <class T>
void fill_marked_rows(std::span<const View<T, 2>> to, View<const std::uint8_t, 1> marked,
                      std::type_identity_t<T> value, Context& context) {
  for (const View<T, 2>& view : to) {
    require_shape<T, 2>("fill_marked_rows: to", view, to.front().shape);
    require_shape("fill_marked_rows: marked", marked, {view.shape[0]});
  }
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) return cuda::fill_marked_rows(to, marked, value, context);
  }
  for (const View<T, 2>& view : to) {
    for (std::int64_t m = 0; m < view.shape[0]; ++m) {
      if (marked.data[m] != 0) std::fill_n(view.at(m), view.shape[1], value);
    }
  }
}

template void convert(View<const bfloat16, 2>, View<float, 2>, Context&);
template void convert(View<const double, 2>, View<float, 2>, Context&);
template void convert(View<const float, 2>, View<float, 2>, Context&);
template void convert(View<const float, 2>, View<bfloat16, 2>, Context&);
template void add(View<const float, 2>, View<float, 2>, Context&);
template void add(View<const bfloat16, 2>, View<bfloat16, 2>, Context&);
template void add(View<const bfloat16, 2>, View<float, 2>, Context&);
template void multiply(View<const float, 2>, View<float, 2>, Context&);
template void multiply(View<const bfloat16, 2>, View<bfloat16, 2>, Context&);
template void multiply_backward(View<const float, 2>, View<const float, 2>, View<const float, 2>,
                                View<float, 2>, View<float, 2>, Context&);
template void multiply_backward(View<const bfloat16, 2>, View<const bfloat16, 2>, View<const bfloat16, 2>,
                                View<bfloat16, 2>, View<bfloat16, 2>, Context&);
template void fill_marked_rows(std::span<const View<float, 2>>, View<const std::uint8_t, 1>, float, Context&);
template void fill_marked_rows(std::span<const View<double, 2>>, View<const std::uint8_t, 1>, double,
                               Context&);

}  // namespace longstrand
