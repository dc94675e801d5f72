// Each row is passed over twice: once for its sums, once to write it. Backward, with r the residual,
// s = 1 / sqrt(mean(r^2) + epsilon) and g = d_out weight:
//
//   d_residual += s g - s^3 mean(g r) r;   d_weight += d_out r s
#include "kernels/rms_norm_cpu.hpp"

#include <cmath>

#include "kernels/simd_targets.hpp"
//
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rms_norm_cpu.cpp"
#include "hwy/foreach_target.h"
//
#include "kernels/simd_math-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace longstrand::HWY_NAMESPACE {
namespace {

float sum_of_lanes(FloatVec x) { return hn::GetLane(hn::SumOfLanes(FloatTag(), x)); }

float inverse_rms(float sum_of_squares, std::int64_t count, float epsilon) {
  return 1.0F / std::sqrt(sum_of_squares / static_cast<float>(count) + epsilon);
}

/// total = residual + sign hidden, count elements of each; returns the sum of its squares. `total` may be
/// `residual`; `hidden` may be null.
template <class T>
float add_and_sum_squares(const float* residual, const T* hidden, float sign, std::int64_t count,
                          float* total) {
  const bool changes = hidden != nullptr || total != residual;
  FloatVec squares = set(0.0F);
  for (std::int64_t d = 0; d < count; d += kLanes) {
    FloatVec r = load(residual + d, count - d);
    if (hidden != nullptr) r = hn::MulAdd(set(sign), load(hidden + d, count - d), r);
    if (changes) store(r, total + d, count - d);
    squares = hn::MulAdd(r, r, squares);
  }
  return sum_of_lanes(squares);
}

template <class T>
void forward(View<const float, 2> residual, View<const T, 2> hidden, View<const float, 1> weight,
             float epsilon, const RmsNormOutput<T>& output, Hidden change) {
  const auto [rows, channels] = residual.shape;
  const auto sign = static_cast<float>(change);
  for (std::int64_t m = 0; m < rows; ++m) {
    float* r = output.residual.at(m);
    const float squares =
        add_and_sum_squares(residual.at(m), hidden.empty() ? nullptr : hidden.at(m), sign, channels, r);
    const FloatVec s = set(inverse_rms(squares, channels, epsilon));
    for (std::int64_t d = 0; d < channels; d += kLanes) {
      const std::int64_t left = channels - d;
      store(hn::Mul(hn::Mul(load(r + d, left), s), load(weight.data + d, left)), output.normed.at(m) + d,
            left);
    }
  }
}

template <class T>
void backward(View<const float, 2> residual, View<const float, 1> weight, float epsilon,
              const RmsNormGradient<T>& gradient) {
  const auto [rows, channels] = residual.shape;
  const auto scaled_gradient = [&](std::int64_t m, std::int64_t d) HWY_ATTR {
    return hn::Mul(load(gradient.d_out.at(m) + d, channels - d), load(weight.data + d, channels - d));
  };
  for (std::int64_t m = 0; m < rows; ++m) {
    FloatVec squares = set(0.0F);
    FloatVec products = set(0.0F);
    for (std::int64_t d = 0; d < channels; d += kLanes) {
      const FloatVec r = load(residual.at(m) + d, channels - d);
      squares = hn::MulAdd(r, r, squares);
      products = hn::MulAdd(scaled_gradient(m, d), r, products);
    }
    const float scale = inverse_rms(sum_of_lanes(squares), channels, epsilon);
    const float mean_product = sum_of_lanes(products) / static_cast<float>(channels);
    const FloatVec s = set(scale);
    const FloatVec along_r = set(scale * scale * mean_product);
    for (std::int64_t d = 0; d < channels; d += kLanes) {
      const std::int64_t left = channels - d;
      const FloatVec r = load(residual.at(m) + d, left);
      const FloatVec d_out = load(gradient.d_out.at(m) + d, left);
      float* d_weight = gradient.d_weight.data + d;
      store(hn::MulAdd(d_out, hn::Mul(r, s), load(d_weight, left)), d_weight, left);

      const FloatVec d_norm = hn::NegMulAdd(along_r, r, scaled_gradient(m, d));
      float* d_residual = gradient.d_residual.at(m) + d;
      const FloatVec total = hn::MulAdd(d_norm, s, load(d_residual, left));
      store(total, d_residual, left);
      store(total, gradient.d_hidden.at(m) + d, left);
    }
  }
}

constexpr auto& forward_float = forward<float>;
constexpr auto& forward_bfloat16 = forward<bfloat16>;
constexpr auto& backward_float = backward<float>;
constexpr auto& backward_bfloat16 = backward<bfloat16>;

}  // namespace
}  // namespace longstrand::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstrand::cpu {

HWY_EXPORT(forward_float);
HWY_EXPORT(forward_bfloat16);
HWY_EXPORT(backward_float);
HWY_EXPORT(backward_bfloat16);

template <>
void rms_norm_forward(View<const float, 2> residual, View<const float, 2> hidden, View<const float, 1> weight,
                      float epsilon, const RmsNormOutput<float>& output, Hidden change) {
  HWY_DYNAMIC_DISPATCH(forward_float)(residual, hidden, weight, epsilon, output, change);
}

template <>
void rms_norm_forward(View<const float, 2> residual, View<const bfloat16, 2> hidden,
                      View<const float, 1> weight, float epsilon, const RmsNormOutput<bfloat16>& output,
                      Hidden change) {
  HWY_DYNAMIC_DISPATCH(forward_bfloat16)(residual, hidden, weight, epsilon, output, change);
}

template <>
void rms_norm_backward(View<const float, 2> residual, View<const float, 1> weight, float epsilon,
                       const RmsNormGradient<float>& gradient) {
  HWY_DYNAMIC_DISPATCH(backward_float)(residual, weight, epsilon, gradient);
}

template <>
void rms_norm_backward(View<const float, 2> residual, View<const float, 1> weight, float epsilon,
                       const RmsNormGradient<bfloat16>& gradient) {
  HWY_DYNAMIC_DISPATCH(backward_bfloat16)(residual, weight, epsilon, gradient);
}

}  // namespace longstrand::cpu
#endif  // HWY_ONCE
