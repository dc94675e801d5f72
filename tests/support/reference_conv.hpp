// The causal convolution of kernels/causal_conv.hpp in double, as the formula reads. Arrays are packed, in
// the shapes that are written beside them.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/direction.hpp"
#include "tests/support/reference_math.hpp"

namespace longstrand::reference {

struct ConvOperands {
  std::int64_t lanes, tokens, channels, taps;  // B, T, D, K
  Doubles x;                                   // [B, T, D]
  Doubles weight;                              // [D, K]
  Doubles bias;                                // [D]
  Doubles state;                               // [B, K - 1, D]
  std::vector<std::int64_t> valid;             // [B]
  Direction direction;
};

struct ConvResults {
  Doubles out;    // [B, T, D]
  Doubles state;  // [B, K - 1, D]
};

/// Gradients of the operands; state is that of the initial state.
struct ConvGradients {
  Doubles x, weight, bias, state;
};

/// Where in an array [B, T, D] the token stands that is walked after t others.
inline std::int64_t conv_row(const ConvOperands& op, std::int64_t lane, std::int64_t t,
                             std::int64_t channel) {
  const std::int64_t token = op.direction == Direction::reverse ? op.valid[lane] - 1 - t : t;
  return (lane * op.tokens + token) * op.channels + channel;
}

/// The input walked `t` tokens after the chunk's first, t >= -(K - 1): from the state where it lies before
/// the chunk. Works on operands and on their gradients alike.
template <class Array>
auto& conv_input(const ConvOperands& op, Array& x, Array& state, std::int64_t lane, std::int64_t t,
                 std::int64_t channel) {
  if (t >= 0) return x[conv_row(op, lane, t, channel)];
  return state[(lane * (op.taps - 1) + op.taps - 1 + t) * op.channels + channel];
}

inline double conv_sum(const ConvOperands& op, std::int64_t lane, std::int64_t t, std::int64_t channel) {
  double sum = op.bias[channel];
  for (std::int64_t k = 0; k < op.taps; ++k) {
    sum += op.weight[channel * op.taps + k] *
           conv_input(op, op.x, op.state, lane, t - (op.taps - 1) + k, channel);
  }
  return sum;
}

inline ConvResults causal_conv(const ConvOperands& op) {
  ConvResults result{Doubles(op.x.size(), 0.0), op.state};
  for (std::int64_t lane = 0; lane < op.lanes; ++lane) {
    for (std::int64_t channel = 0; channel < op.channels; ++channel) {
      const std::int64_t count = op.valid[lane];
      for (std::int64_t t = 0; t < count; ++t) {
        result.out[conv_row(op, lane, t, channel)] = silu(conv_sum(op, lane, t, channel));
      }
      for (std::int64_t k = 0; k < op.taps - 1; ++k) {
        result.state[(lane * (op.taps - 1) + k) * op.channels + channel] =
            conv_input(op, op.x, op.state, lane, count - (op.taps - 1) + k, channel);
      }
    }
  }
  return result;
}

/// Of the loss whose gradients by out and by the final state are d_out [B, T, D] and d_state [B, K - 1, D].
inline ConvGradients causal_conv_backward(const ConvOperands& op, const Doubles& d_out,
                                          const Doubles& d_state) {
  ConvGradients grad{Doubles(op.x.size(), 0.0), Doubles(op.weight.size(), 0.0), Doubles(op.bias.size(), 0.0),
                     Doubles(op.state.size(), 0.0)};
  for (std::int64_t lane = 0; lane < op.lanes; ++lane) {
    for (std::int64_t channel = 0; channel < op.channels; ++channel) {
      const std::int64_t count = op.valid[lane];
      for (std::int64_t k = 0; k < op.taps - 1; ++k) {
        conv_input(op, grad.x, grad.state, lane, count - (op.taps - 1) + k, channel) +=
            d_state[(lane * (op.taps - 1) + k) * op.channels + channel];
      }
      for (std::int64_t t = 0; t < count; ++t) {
        const double d_sum =
            d_out[conv_row(op, lane, t, channel)] * silu_slope(conv_sum(op, lane, t, channel));
        grad.bias[channel] += d_sum;
        for (std::int64_t k = 0; k < op.taps; ++k) {
          const std::int64_t from = t - (op.taps - 1) + k;
          grad.weight[channel * op.taps + k] += d_sum * conv_input(op, op.x, op.state, lane, from, channel);
          conv_input(op, grad.x, grad.state, lane, from, channel) += d_sum * op.weight[channel * op.taps + k];
        }
      }
    }
  }
  return grad;
}

}  // namespace longstrand::reference
