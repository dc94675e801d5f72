// RMSNorm with the residual stream in float (Zhang & Sennrich 2019):
//
//   residual += hidden;   out = residual / sqrt(mean(residual^2) + epsilon) * weight
//
// On a GPU D is at most 4096; more throws std::logic_error.
#pragma once

#include "kernels/context.hpp"
#include "kernels/view.hpp"

namespace longstrand {

/// residual [M, D] in and out; hidden [M, D], or empty where there is nothing to add; weight [D]; out [M, D].
template <class T>
void rms_norm_forward(View<float, 2> residual, View<const T, 2> hidden, View<const float, 1> weight,
                      float epsilon, View<T, 2> out, Context& context);

template <class T>
struct RmsNormGradient {
  View<const T, 2> d_out;     // [M, D]
  View<float, 2> d_residual;  // [M, D]  in: gradient of the residual from above; out: with the norm's added
  View<T, 2> d_hidden;        // [M, D]  receives d_residual rounded to T
  View<float, 1> d_weight;    // [D]     accumulated
};

/// `residual` [M, D] as forward left it.
template <class T>
void rms_norm_backward(View<const float, 2> residual, View<const float, 1> weight, float epsilon,
                       const RmsNormGradient<T>& gradient, Context& context);

}  // namespace longstrand
