#include "kernels/adamw_cpu.hpp"

#include <cmath>

#include "kernels/simd_targets.hpp"
//
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/adamw_cpu.cpp"
#include "hwy/foreach_target.h"
//
#include "kernels/simd_math-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace longstrand::HWY_NAMESPACE {
namespace {

void step(View<float, 1> weight, View<const float, 1> gradient, View<float, 1> m, View<float, 1> v,
          const AdamWOptions& options) {
  const auto exponent = static_cast<double>(options.step);
  const double correction1 = 1 - std::pow(options.beta1, exponent);
  const double correction2 = 1 - std::pow(options.beta2, exponent);
  const auto factor = [](double value) { return set(static_cast<float>(value)); };
  const FloatVec beta1 = factor(options.beta1);
  const FloatVec beta2 = factor(options.beta2);
  const FloatVec rest1 = factor(1 - options.beta1);
  const FloatVec rest2 = factor(1 - options.beta2);
  const FloatVec scale = factor(options.gradient_scale);
  const FloatVec keep = factor(1 - options.learning_rate * options.weight_decay);
  const FloatVec rate = factor(options.learning_rate / correction1);
  const FloatVec root_scale = factor(1 / std::sqrt(correction2));
  const FloatVec epsilon = factor(options.epsilon);

  const std::int64_t count = weight.shape[0];
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const std::int64_t left = count - i;
    const FloatVec g = hn::Mul(scale, load(gradient.data + i, left));
    const FloatVec new_m = hn::MulAdd(beta1, load(m.data + i, left), hn::Mul(rest1, g));
    const FloatVec new_v = hn::MulAdd(beta2, load(v.data + i, left), hn::Mul(rest2, hn::Mul(g, g)));
    const FloatVec divisor = hn::MulAdd(hn::Sqrt(new_v), root_scale, epsilon);
    const FloatVec step_down = hn::Mul(rate, hn::Div(new_m, divisor));
    store(new_m, m.data + i, left);
    store(new_v, v.data + i, left);
    store(hn::Sub(hn::Mul(keep, load(weight.data + i, left)), step_down), weight.data + i, left);
  }
}

double squares(View<const float, 1> values) {
  const hn::ScalableTag<double> wide;
  const hn::Rebind<float, hn::ScalableTag<double>> narrow;
  constexpr std::int64_t kWideLanes = hn::MaxLanes(wide);
  constexpr int kSums = 4;  // as many as hide the latency of an addition
  hn::Vec<decltype(wide)> sums[kSums] = {hn::Zero(wide), hn::Zero(wide), hn::Zero(wide), hn::Zero(wide)};
  const std::int64_t count = values.shape[0];
  std::int64_t i = 0;
  for (; i + kSums * kWideLanes <= count; i += kSums * kWideLanes) {
    for (int k = 0; k < kSums; ++k) {
      const auto x = hn::PromoteTo(wide, hn::LoadU(narrow, values.data + i + k * kWideLanes));
      sums[k] = hn::MulAdd(x, x, sums[k]);
    }
  }
  const auto total = hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]));
  double sum = hn::GetLane(hn::SumOfLanes(wide, total));
  for (; i < count; ++i) sum += static_cast<double>(values.data[i]) * static_cast<double>(values.data[i]);
  return sum;
}

}  // namespace
}  // namespace longstrand::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstrand::cpu {

HWY_EXPORT(step);
HWY_EXPORT(squares);

void adamw_step(View<float, 1> weight, View<const float, 1> gradient, View<float, 1> m, View<float, 1> v,
                const AdamWOptions& options) {
  HWY_DYNAMIC_DISPATCH(step)(weight, gradient, m, v, options);
}

double sum_of_squares(View<const float, 1> values) { return HWY_DYNAMIC_DISPATCH(squares)(values); }

}  // namespace longstrand::cpu
#endif  // HWY_ONCE
