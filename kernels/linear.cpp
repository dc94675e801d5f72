#include "kernels/linear.hpp"

#include <algorithm>
#include <type_traits>
#include <variant>

#include "kernels/check.hpp"
#include "kernels/linear_cpu.hpp"
#include "kernels/linear_cuda.hpp"
#include "kernels/rms_norm.hpp"
#include "kernels/softplus_cpu.hpp"

namespace longstrand {

template <class T>
struct PackedLinear<T>::Impl {
  std::int64_t in = 0;
  std::int64_t out = 0;
  bool for_backward = false;
  using HostMatrix = std::conditional_t<kCpuBuilt, cpu::PackedMatrix<T>, std::monostate>;
  HostMatrix forward;               // [in, out]
  HostMatrix backward;              // [out, in]; empty unless asked for
  cuda::DeviceWeight<T> on_device;  // on a GPU, instead of both
};

template <class T>
PackedLinear<T>::PackedLinear() : impl_(std::make_unique<Impl>()) {}
template <class T>
PackedLinear<T>::~PackedLinear() = default;
template <class T>
PackedLinear<T>::PackedLinear(PackedLinear&&) noexcept = default;
template <class T>
PackedLinear<T>& PackedLinear<T>::operator=(PackedLinear&&) noexcept = default;

template <class T>
void PackedLinear<T>::pack(View<const float, 2> weight, bool for_backward, Context& context) {
  assert(weight.size() > 0);
  impl_->out = weight.shape[0];
  impl_->in = weight.shape[1];
  impl_->for_backward = for_backward;
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) return impl_->on_device.pack(weight, context);
  }
  if constexpr (kCpuBuilt) {
    impl_->forward.pack_transposed(weight);
    if (for_backward) {
      impl_->backward.pack(weight);
    } else {
      impl_->backward.clear();  // it would be of an older weight
    }
  } else {
    throw NoCpuBackend();
  }
}

template <class T>
std::int64_t PackedLinear<T>::in_features() const {
  return impl_->in;
}

template <class T>
std::int64_t PackedLinear<T>::out_features() const {
  return impl_->out;
}

template <class T>
View<const T, 2> cuda::device_weight(const PackedLinear<T>& weight) {
  return weight.impl().on_device.view();
}

template <class T, class Out>
void linear_forward(View<const T, 2> x, const PackedLinear<T>& weight, View<Out, 2> y, Context& context) {
  const std::int64_t m = x.shape[0];
  require_shape("linear_forward: x", x, {m, weight.in_features()});
  require_shape("linear_forward: y", y, {m, weight.out_features()});
  if (m == 0) return;
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) {
      return cuda::linear_forward(x, cuda::device_weight(weight), y, context);
    }
  }
  if constexpr (kCpuBuilt)
    return cpu::multiply(x, weight.impl().forward, y, GradientMode::overwrite, context);
  throw NoCpuBackend();
}

template <class T>
void linear_softplus_forward(View<const T, 2> x, const PackedLinear<T>& weight, View<const float, 1> bias,
                             View<T, 2> y, Context& context) {
  const std::int64_t m = x.shape[0];
  require_shape("linear_softplus_forward: x", x, {m, weight.in_features()});
  require_shape("linear_softplus_forward: bias", bias, {weight.out_features()});
  require_shape("linear_softplus_forward: y", y, {m, weight.out_features()});
  if (m == 0) return;
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) {
      return cuda::linear_softplus_forward(x, cuda::device_weight(weight), bias, y, context);
    }
  }
  if constexpr (kCpuBuilt) {
    const Arena::Scope scope(context.scratch);
    constexpr std::int64_t kBlock_rows = 64;  // the products are still in cache when they are read again
    const auto products = context.scratch.take<float, 2>({std::min(m, kBlock_rows), weight.out_features()});
    for (std::int64_t begin = 0; begin < m; begin += kBlock_rows) {
      const std::int64_t count = std::min(m - begin, kBlock_rows);
      const auto block = products.slice(0, count);
      cpu::multiply(x.slice(begin, count), weight.impl().forward, block, GradientMode::overwrite, context);
      cpu::add_bias_softplus(block, bias, y.slice(begin, count));
    }
    return;
  }
  throw NoCpuBackend();
}

template <class T>
void linear_norm_forward(View<const T, 2> x, const PackedLinear<T>& weight, const ResidualNorm<T>& norm,
                         Context& context) {
  const std::int64_t m = x.shape[0], channels = weight.out_features();
  require_shape("linear_norm_forward: x", x, {m, weight.in_features()});
  require_shape("linear_norm_forward: residual", norm.residual, {m, channels});
  require_shape("linear_norm_forward: norm", norm.weight, {channels});
  require_shape("linear_norm_forward: normed", norm.normed, {m, channels});
  if constexpr (kCudaBuilt && std::is_same_v<T, bfloat16>) {
    if (context.device.kind == DeviceKind::cuda && m > 0 &&
        cuda::linear_norm_forward(x, cuda::device_weight(weight), norm, context)) {
      return;
    }
  }
  // The product lies for a while where its sum is put, normed.
  linear_forward<T, T>(x, weight, norm.normed, context);
  rms_norm_forward<T>(norm.residual, norm.normed, norm.weight, norm.epsilon, {norm.residual, norm.normed},
                      context);
}

template <class T>
void linear_backward_input(View<const T, 2> d_y, const PackedLinear<T>& weight, View<T, 2> d_x,
                           GradientMode mode, Context& context) {
  const std::int64_t m = d_y.shape[0];
  require_shape("linear_backward_input: d_y", d_y, {m, weight.out_features()});
  require_shape("linear_backward_input: d_x", d_x, {m, weight.in_features()});
  if (!weight.impl().for_backward) {
    throw std::logic_error("linear_backward_input: the weight was packed for forward only");
  }
  if (m == 0) return;
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) {
      return cuda::linear_backward_input(d_y, cuda::device_weight(weight), d_x, mode, context);
    }
  }
  if constexpr (kCpuBuilt) return cpu::multiply(d_y, weight.impl().backward, d_x, mode, context);
  throw NoCpuBackend();
}

template <class T>
void linear_backward_weight(View<const T, 2> d_y, View<const T, 2> x, View<float, 2> d_weight,
                            Context& context) {
  const std::int64_t m = d_y.shape[0];
  require_shape("linear_backward_weight: x", x, {m, x.shape[1]});
  require_shape("linear_backward_weight: d_y", d_y, {m, d_y.shape[1]});
  require_shape("linear_backward_weight: d_weight", d_weight, {d_y.shape[1], x.shape[1]});
  if (m == 0) return;
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) {
      return cuda::linear_backward_weight(d_y, x, d_weight, context);
    }
  }
  if constexpr (kCpuBuilt) return cpu::add_transposed_product(d_y, x, d_weight, context);
  throw NoCpuBackend();
}

bool has_bfloat16_products(Device device) {
  if constexpr (kCudaBuilt) {
    if (device.kind == DeviceKind::cuda) return cuda::has_bfloat16_products(device);
  }
  if constexpr (kCpuBuilt) return cpu::has_bfloat16_products();
  return false;
}

template class PackedLinear<float>;
template class PackedLinear<bfloat16>;

template View<const float, 2> cuda::device_weight(const PackedLinear<float>&);
template View<const bfloat16, 2> cuda::device_weight(const PackedLinear<bfloat16>&);

template void linear_forward(View<const float, 2>, const PackedLinear<float>&, View<float, 2>, Context&);
template void linear_forward(View<const bfloat16, 2>, const PackedLinear<bfloat16>&, View<bfloat16, 2>,
                             Context&);
template void linear_forward(View<const bfloat16, 2>, const PackedLinear<bfloat16>&, View<float, 2>,
                             Context&);

template void linear_softplus_forward(View<const float, 2>, const PackedLinear<float>&, View<const float, 1>,
                                      View<float, 2>, Context&);
template void linear_softplus_forward(View<const bfloat16, 2>, const PackedLinear<bfloat16>&,
                                      View<const float, 1>, View<bfloat16, 2>, Context&);

template void linear_norm_forward(View<const float, 2>, const PackedLinear<float>&,
                                  const ResidualNorm<float>&, Context&);
template void linear_norm_forward(View<const bfloat16, 2>, const PackedLinear<bfloat16>&,
                                  const ResidualNorm<bfloat16>&, Context&);

template void linear_backward_input(View<const float, 2>, const PackedLinear<float>&, View<float, 2>,
                                    GradientMode, Context&);
template void linear_backward_input(View<const bfloat16, 2>, const PackedLinear<bfloat16>&, View<bfloat16, 2>,
                                    GradientMode, Context&);

template void linear_backward_weight(View<const float, 2>, View<const float, 2>, View<float, 2>, Context&);
template void linear_backward_weight(View<const bfloat16, 2>, View<const bfloat16, 2>, View<float, 2>,
                                     Context&);

}  // namespace longstrand
