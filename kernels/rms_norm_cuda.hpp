// RMSNorm on a GPU; operands as in rms_norm.hpp, already checked.
#pragma once

#include "kernels/rms_norm.hpp"

namespace longstrand::cuda {

template <class T>
void rms_norm_forward(View<const float, 2> residual, View<const T, 2> hidden, View<const float, 1> weight,
                      float epsilon, const RmsNormOutput<T>& output, Context& context, Hidden change);

template <class T>
void rms_norm_backward(View<const float, 2> residual, View<const float, 1> weight, float epsilon,
                       const RmsNormGradient<T>& gradient, Context& context);

}  // namespace longstrand::cuda
