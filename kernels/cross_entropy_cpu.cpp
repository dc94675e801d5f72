// With e_v = exp(logits_v - max) and their sum s: loss = weight (log s - (logits_target - max)), and the
// gradient of logits_v is weight (e_v / s - [v = target]).
#include "kernels/cross_entropy_cpu.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/simd_targets.hpp"
//
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cross_entropy_cpu.cpp"
#include "hwy/foreach_target.h"
//
#include "kernels/simd_math-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace longstrand::HWY_NAMESPACE {
namespace {

/// load() with -infinity past the end, whose exponential is 0.
FloatVec load_logits(const float* logits, std::int64_t left) {
  if (left >= kLanes) return load(logits);
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  const auto inside = hn::FirstN(FloatTag(), static_cast<std::size_t>(left));
  return hn::IfThenElse(inside, load(logits, left), set(kNone));
}

/// On some instruction sets exp() bounds its argument, in which a NaN would be lost.
FloatVec exp_or_nan(FloatVec x) { return hn::IfThenElse(hn::IsNaN(x), x, exp(x)); }

struct SoftmaxSums {
  float largest;
  float sum;  // of exp(logits - largest)
};

SoftmaxSums softmax_sums(const float* logits, std::int64_t classes) {
  FloatVec largest = load_logits(logits, classes);
  for (std::int64_t v = kLanes; v < classes; v += kLanes) {
    largest = hn::Max(largest, load_logits(logits + v, classes - v));
  }
  largest = hn::MaxOfLanes(FloatTag(), largest);
  FloatVec sums = set(0.0F);
  for (std::int64_t v = 0; v < classes; v += kLanes) {
    sums = hn::Add(sums, exp_or_nan(hn::Sub(load_logits(logits + v, classes - v), largest)));
  }
  return {hn::GetLane(largest), hn::GetLane(hn::SumOfLanes(FloatTag(), sums))};
}

float row_weight(const CrossEntropyInput& input, std::int64_t m) {
  return input.weight.empty() ? 1.0F : input.weight.data[m];
}

float row_loss(const CrossEntropyInput& input, const SoftmaxSums& sums, std::int64_t m) {
  const float of_target = input.logits.at(m)[input.target.data[m]];
  return row_weight(input, m) * (std::log(sums.sum) - (of_target - sums.largest));
}

void forward(const CrossEntropyInput& input, View<float, 1> loss) {
  const auto [rows, classes] = input.logits.shape;
  for (std::int64_t m = 0; m < rows; ++m) {
    const bool counts = input.target.data[m] != kNoTarget;
    loss.data[m] = counts ? row_loss(input, softmax_sums(input.logits.at(m), classes), m) : 0.0F;
  }
}

template <class T>
void backward(const CrossEntropyInput& input, float scale, View<float, 1> loss, View<T, 2> d_logits) {
  const auto [rows, classes] = input.logits.shape;
  for (std::int64_t m = 0; m < rows; ++m) {
    const std::int64_t target = input.target.data[m];
    if (target == kNoTarget) {
      loss.data[m] = 0.0F;
      std::fill_n(d_logits.at(m), classes, T{});
      continue;
    }
    const float* logits = input.logits.at(m);
    const SoftmaxSums sums = softmax_sums(logits, classes);
    loss.data[m] = row_loss(input, sums, m);
    const float row_scale = scale * row_weight(input, m);
    const FloatVec largest = set(sums.largest);
    const FloatVec factor = set(row_scale / sums.sum);
    for (std::int64_t v = 0; v < classes; v += kLanes) {
      const FloatVec e = exp_or_nan(hn::Sub(load_logits(logits + v, classes - v), largest));
      store(hn::Mul(e, factor), d_logits.at(m) + v, classes - v);
    }
    const float probability = std::exp(logits[target] - sums.largest) / sums.sum;
    d_logits.at(m)[target] = T(row_scale * (probability - 1.0F));
  }
}

constexpr auto& backward_float = backward<float>;
constexpr auto& backward_bfloat16 = backward<bfloat16>;

}  // namespace
}  // namespace longstrand::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstrand::cpu {

HWY_EXPORT(forward);
HWY_EXPORT(backward_float);
HWY_EXPORT(backward_bfloat16);

void cross_entropy_forward(const CrossEntropyInput& input, View<float, 1> loss) {
  HWY_DYNAMIC_DISPATCH(forward)(input, loss);
}

template <>
void cross_entropy_backward(const CrossEntropyInput& input, float scale, View<float, 1> loss,
                            View<float, 2> d_logits) {
  HWY_DYNAMIC_DISPATCH(backward_float)(input, scale, loss, d_logits);
}

template <>
void cross_entropy_backward(const CrossEntropyInput& input, float scale, View<float, 1> loss,
                            View<bfloat16, 2> d_logits) {
  HWY_DYNAMIC_DISPATCH(backward_bfloat16)(input, scale, loss, d_logits);
}

void cross_entropy_totals(const CrossEntropyInput& input, View<const float, 1> loss, View<double, 1> totals) {
  const auto [rows, classes] = input.logits.shape;
  double sum = 0;
  std::int64_t targets = 0, correct = 0;
  for (std::int64_t m = 0; m < rows; ++m) {
    const std::int32_t target = input.target.data[m];
    if (target == kNoTarget) continue;
    const float* logits = input.logits.at(m);
    sum += static_cast<double>(loss.data[m]);
    targets += 1;
    correct += std::max_element(logits, logits + classes) - logits == target;
  }
  totals.data[0] += sum;
  totals.data[1] += static_cast<double>(targets);
  totals.data[2] += static_cast<double>(correct);
}

}  // namespace longstrand::cpu
#endif  // HWY_ONCE
