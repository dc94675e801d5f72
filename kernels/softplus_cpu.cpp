#include "kernels/softplus_cpu.hpp"

#include "kernels/simd_targets.hpp"
//
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/softplus_cpu.cpp"
#include "hwy/foreach_target.h"
//
#include "kernels/simd_math-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace longstrand::HWY_NAMESPACE {
namespace {

template <class T>
void softplus_of_sum(View<const float, 2> x, View<const float, 1> bias, View<T, 2> y) {
  const auto [rows, channels] = x.shape;
  for (std::int64_t m = 0; m < rows; ++m) {
    for (std::int64_t d = 0; d < channels; d += kLanes) {
      const std::int64_t left = channels - d;
      store(softplus(hn::Add(load(x.at(m) + d, left), load(bias.data + d, left))), y.at(m) + d, left);
    }
  }
}

constexpr auto& softplus_of_sum_float = softplus_of_sum<float>;
constexpr auto& softplus_of_sum_bfloat16 = softplus_of_sum<bfloat16>;

}  // namespace
}  // namespace longstrand::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstrand::cpu {

HWY_EXPORT(softplus_of_sum_float);
HWY_EXPORT(softplus_of_sum_bfloat16);

template <>
void add_bias_softplus(View<const float, 2> x, View<const float, 1> bias, View<float, 2> y) {
  HWY_DYNAMIC_DISPATCH(softplus_of_sum_float)(x, bias, y);
}

template <>
void add_bias_softplus(View<const float, 2> x, View<const float, 1> bias, View<bfloat16, 2> y) {
  HWY_DYNAMIC_DISPATCH(softplus_of_sum_bfloat16)(x, bias, y);
}

}  // namespace longstrand::cpu
#endif  // HWY_ONCE
