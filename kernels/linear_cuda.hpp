// Linear layers on a GPU; operands as in linear.hpp, already checked, M > 0. One copy of the weight serves
// all three products.
#pragma once

#include "kernels/context.hpp"
#include "kernels/linear.hpp"
#include "kernels/view.hpp"

namespace longstrand::cuda {

/// A weight [out, in] rounded to T, on the device.
template <class T>
class DeviceWeight {
 public:
  /// Asynchronous, but where the shape differs from that of the weight before.
  void pack(View<const float, 2> weight, Context& context);
  /// [out, in], its rows aligned to 16 bytes.
  View<const T, 2> view() const { return storage_.view().columns(0, in_); }

 private:
  Array<T, 2> storage_;  // [out, in rounded up]
  std::int64_t in_ = 0;
};

/// Of a weight that was packed on a GPU.
template <class T>
View<const T, 2> device_weight(const PackedLinear<T>& weight);

template <class T, class Out>
void linear_forward(View<const T, 2> x, View<const T, 2> weight, View<Out, 2> y, Context& context);

template <class T>
void linear_softplus_forward(View<const T, 2> x, View<const T, 2> weight, View<const float, 1> bias,
                             View<T, 2> y, Context& context);

/// Returns false, with nothing done, where there is no kernel that does all of it: on a Hopper GPU there is
/// one for many rows of 128 or 256 outputs, which adds the product unrounded.
bool linear_norm_forward(View<const bfloat16, 2> x, View<const bfloat16, 2> weight,
                         const ResidualNorm<bfloat16>& norm, Context& context);

template <class T>
void linear_backward_input(View<const T, 2> d_y, View<const T, 2> weight, View<T, 2> d_x, GradientMode mode,
                           Context& context);

template <class T>
void linear_backward_weight(View<const T, 2> d_y, View<const T, 2> x, View<float, 2> d_weight,
                            Context& context);

bool has_bfloat16_products(Device device);

}  // namespace longstrand::cuda
