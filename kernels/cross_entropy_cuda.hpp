// Cross entropy on a GPU; operands as in cross_entropy.hpp, their shapes already checked.
#pragma once

#include "kernels/cross_entropy.hpp"

namespace longstrand::cuda {

void cross_entropy_forward(const CrossEntropyInput& input, View<float, 1> loss, Context& context);

template <class T>
void cross_entropy_backward(const CrossEntropyInput& input, float scale, View<float, 1> loss,
                            View<T, 2> d_logits, Context& context);

void cross_entropy_totals(const CrossEntropyInput& input, View<const float, 1> loss, View<double, 1> totals,
                          Context& context);

}  // namespace longstrand::cuda
