// Mamba's input projection, causal convolution and SiLU in one kernel, which need not write the input of the
// convolution:
//
//   x, z = input W^T;   u = silu(conv(x)), as in causal_conv.hpp
#pragma once

#include "kernels/context.hpp"
#include "kernels/direction.hpp"
#include "kernels/linear.hpp"
#include "kernels/view.hpp"

namespace longstrand {

template <class T>
struct LinearConvInput {
  View<const T, 3> input;             // [B, T, in]
  const PackedLinear<T>& weight;      // [2 D, in]  of x, then of z
  View<const float, 2> conv_weight;   // [D, K]
  View<const float, 1> conv_bias;     // [D]
  View<const float, 3> state;         // [B, K - 1, D]  the x before the chunk, oldest first
  View<const std::int64_t, 1> valid;  // [B]
  Direction direction = Direction::forward;
};

template <class T>
struct LinearConvOutput {
  View<T, 3> u;          // [B, T, D]  zero at padding
  View<T, 3> z;          // [B, T, D]
  View<float, 3> state;  // [B, K - 1, D]  after the chunk; may be the input's
  View<T, 3> x = {};     // [B, T, D]  optional
};

/// Returns false, with nothing done, where there is no such kernel or it does not pay: then linear_forward
/// and causal_conv_forward give the same, but for the order of sums. There is one for a Hopper GPU, bfloat16,
/// Direction::forward, 4 taps, at most 256 inputs and rows of whole vectors. x is rounded to T, as if it had
/// been written.
template <class T>
bool linear_conv_forward(const LinearConvInput<T>& input, const LinearConvOutput<T>& output,
                         Context& context);

}  // namespace longstrand
