// y = x W^T with W [out, in], what follows it in one operation, and its two backward products. Sums are in
// float.
#pragma once

#include <memory>

#include "kernels/context.hpp"
#include "kernels/view.hpp"

namespace longstrand {

/// A weight in the form in which the device multiplies by it. Pack it again whenever the weight has changed.
/// Any number of threads may multiply by one at a time, none while it is packed.
template <class T>
class PackedLinear {
 public:
  PackedLinear();
  ~PackedLinear();
  PackedLinear(PackedLinear&&) noexcept;
  PackedLinear& operator=(PackedLinear&&) noexcept;

  /// weight [out, in]. `for_backward` also packs what linear_backward_input needs.
  void pack(View<const float, 2> weight, bool for_backward, Context& context);
  std::int64_t in_features() const;
  std::int64_t out_features() const;

  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

/// x [M, in] -> y [M, out], rounded to the type of y. Any row stride.
template <class T, class Out>
void linear_forward(View<const T, 2> x, const PackedLinear<T>& weight, View<Out, 2> y, Context& context);

/// x [M, in] -> y [M, out] = softplus(x W^T + bias), rounded once. bias [out]. Its derivative by the argument
/// of softplus is 1 - exp(-y).
template <class T>
void linear_softplus_forward(View<const T, 2> x, const PackedLinear<T>& weight, View<const float, 1> bias,
                             View<T, 2> y, Context& context);

/// A residual that a product is added to, and the RMSNorm that follows (kernels/rms_norm.hpp).
template <class T>
struct ResidualNorm {
  View<float, 2> residual;      // [M, D]  the product is added in place
  View<const float, 1> weight;  // [D]     of the norm
  float epsilon;
  View<T, 2> normed;  // [M, D]
};

/// x [M, in]: residual += x W^T;   normed = RMSNorm(residual). A bfloat16's product may be rounded before it
/// is added.
template <class T>
void linear_norm_forward(View<const T, 2> x, const PackedLinear<T>& weight, const ResidualNorm<T>& norm,
                         Context& context);

/// d_y [M, out] -> d_x [M, in] = d_y W, replaced or added to.
template <class T>
void linear_backward_input(View<const T, 2> d_y, const PackedLinear<T>& weight, View<T, 2> d_x,
                           GradientMode mode, Context& context);

/// d_weight [out, in] += d_y^T x.
template <class T>
void linear_backward_weight(View<const T, 2> d_y, View<const T, 2> x, View<float, 2> d_weight,
                            Context& context);

/// Whether this device has matrix instructions for bfloat16 (AMX or AVX512-BF16 on a CPU, any GPU since
/// Ampere).
bool has_bfloat16_products(Device device);

}  // namespace longstrand
