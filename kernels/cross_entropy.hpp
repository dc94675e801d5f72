// Cross entropy of logits against class ids: loss_m = weight_m (log sum_v exp(logits[m, v]) - logits[m,
// target_m]).
#pragma once

#include "kernels/context.hpp"
#include "kernels/view.hpp"

namespace longstrand {

inline constexpr std::int32_t kNoTarget = -1;

struct CrossEntropyInput {
  View<const float, 2> logits;         // [M, V]
  View<const std::int32_t, 1> target;  // [M]  class, or kNoTarget: no loss, no gradient. Anything else:
                                       // std::logic_error on the CPU; NaN for loss and gradient on a GPU
  View<const float, 1> weight = {};    // [M]  optional; 1 where empty
};

/// loss [M], 0 where there is no target.
void cross_entropy_forward(const CrossEntropyInput& input, View<float, 1> loss, Context& context);

/// d_logits [M, V] = scale d(sum of loss)/d(logits), overwritten; also writes loss [M] as forward does.
template <class T>
void cross_entropy_backward(const CrossEntropyInput& input, float scale, View<float, 1> loss,
                            View<T, 2> d_logits, Context& context);

/// Adds to totals [3]: the sum of loss [M], the number of targets, and of these how many have the largest of
/// their row's logits (the first of equal ones). In double, in an order that depends on M alone.
void cross_entropy_totals(const CrossEntropyInput& input, View<const float, 1> loss, View<double, 1> totals,
                          Context& context);

}  // namespace longstrand
