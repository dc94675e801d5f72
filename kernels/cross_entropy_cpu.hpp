// Cross entropy on the CPU; operands as in cross_entropy.hpp, already checked.
#pragma once

#include "kernels/cross_entropy.hpp"

namespace longstrand::cpu {

void cross_entropy_forward(const CrossEntropyInput& input, View<float, 1> loss);

template <class T>
void cross_entropy_backward(const CrossEntropyInput& input, float scale, View<float, 1> loss,
                            View<T, 2> d_logits);

void cross_entropy_totals(const CrossEntropyInput& input, View<const float, 1> loss, View<double, 1> totals);

}  // namespace longstrand::cpu
