// RMSNorm with the residual stream in float (Zhang & Sennrich 2019):
//
//   residual += hidden;   normed = residual / sqrt(mean(residual^2) + epsilon) * weight
//
// or, on the way back through a stack of layers, residual -= hidden.
//
// On a GPU D is at most 4096; more throws std::logic_error.
#pragma once

#include "kernels/context.hpp"
#include "kernels/view.hpp"

namespace longstrand {

/// What is done with hidden before the residual is normed: its sign.
enum class Hidden : std::int8_t { add = 1, subtract = -1 };

template <class T>
struct RmsNormOutput {
  View<float, 2> residual;  // [M, D]  with hidden added or subtracted; may be the residual that goes in
  View<T, 2> normed;        // [M, D]  may be hidden
};

/// residual [M, D]; hidden [M, D], or empty where the residual stays; weight [D].
template <class T>
void rms_norm_forward(View<const float, 2> residual, View<const T, 2> hidden, View<const float, 1> weight,
                      float epsilon, const RmsNormOutput<T>& output, Context& context,
                      Hidden change = Hidden::add);

template <class T>
struct RmsNormGradient {
  View<const T, 2> d_out;     // [M, D]  of normed
  View<float, 2> d_residual;  // [M, D]  in: gradient of the residual from above; out: with the norm's added
  View<T, 2> d_hidden;        // [M, D]  receives d_residual rounded to T
  View<float, 1> d_weight;    // [D]     accumulated
};

/// `residual` [M, D] as forward put it out.
template <class T>
void rms_norm_backward(View<const float, 2> residual, View<const float, 1> weight, float epsilon,
                       const RmsNormGradient<T>& gradient, Context& context);

}  // namespace longstrand
