// RMSNorm on the CPU; operands as in rms_norm.hpp, already checked.
#pragma once

#include "kernels/rms_norm.hpp"

namespace longstrand::cpu {

template <class T>
void rms_norm_forward(View<const float, 2> residual, View<const T, 2> hidden, View<const float, 1> weight,
                      float epsilon, const RmsNormOutput<T>& output, Hidden change);

template <class T>
void rms_norm_backward(View<const float, 2> residual, View<const float, 1> weight, float epsilon,
                       const RmsNormGradient<T>& gradient);

}  // namespace longstrand::cpu
