// Causal depthwise convolution over the length, then SiLU (Mamba's conv1d):
//
//   s_t = bias + sum_k weight[d, k] x_{t - (K - 1) + k};   out_t = s_t sigmoid(s_t)
//
// t counts the tokens as they are walked: from the first to the last or, in reverse, from the last valid one
// to the first, so that the convolution looks to the right. The state holds the K - 1 inputs walked before
// the chunk's, oldest first. Tokens at and past valid[b] are padding: they do not enter the state, and their
// out and gradients are written as zero.
#pragma once

#include "kernels/context.hpp"
#include "kernels/direction.hpp"
#include "kernels/view.hpp"

namespace longstrand {

/// The numbers K of taps that can be computed; another one throws std::logic_error.
inline constexpr int kFewestConvTaps = 2;
inline constexpr int kMostConvTaps = 8;

template <class T>
struct CausalConvInput {
  View<const T, 3> x;                 // [B, T, D]
  View<const float, 2> weight;        // [D, K]
  View<const float, 1> bias;          // [D]
  View<const float, 3> state;         // [B, K - 1, D]
  View<const std::int64_t, 1> valid;  // [B]
  Direction direction = Direction::forward;
};

template <class T>
struct CausalConvGradient {
  View<const T, 3> d_out;   // [B, T, D]
  View<T, 3> d_x;           // [B, T, D]  overwritten
  View<float, 2> d_weight;  // [D, K]     accumulated
  View<float, 1> d_bias;    // [D]        accumulated
  View<float, 3> d_state;   // [B, K - 1, D]  in: gradient of the final state; out: of the initial state
};

/// `out` is [B, T, D]; `state` [B, K - 1, D] receives the final state and may be the input's.
template <class T>
void causal_conv_forward(const CausalConvInput<T>& input, View<T, 3> out, View<float, 3> state,
                         Context& context);

/// `input` as given to forward, its state included.
template <class T>
void causal_conv_backward(const CausalConvInput<T>& input, const CausalConvGradient<T>& gradient,
                          Context& context);

}  // namespace longstrand
