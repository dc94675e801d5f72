// RMSNorm with its residual in double, as the formulas of kernels/rms_norm.hpp read. Arrays are packed.
#pragma once

#include <cmath>
#include <cstdint>

#include "tests/support/reference_math.hpp"

namespace longstrand::reference {

struct RmsNormOperands {
  std::int64_t rows, channels;  // M, D
  double epsilon;
  Doubles residual;  // [M, D], hidden already added
  Doubles weight;    // [D]
};

/// 1 / sqrt(mean(residual^2) + epsilon) of a row.
inline double inverse_rms(const RmsNormOperands& op, std::int64_t row) {
  double squares = 0;
  for (std::int64_t d = 0; d < op.channels; ++d) {
    squares += op.residual[row * op.channels + d] * op.residual[row * op.channels + d];
  }
  return 1 / std::sqrt(squares / static_cast<double>(op.channels) + op.epsilon);
}

inline Doubles rms_norm(const RmsNormOperands& op) {
  Doubles out;
  for (std::int64_t m = 0; m < op.rows; ++m) {
    const double s = inverse_rms(op, m);
    for (std::int64_t d = 0; d < op.channels; ++d) {
      out.push_back(op.residual[m * op.channels + d] * s * op.weight[d]);
    }
  }
  return out;
}

struct RmsNormGradients {
  Doubles residual, weight;
};

/// Of the loss whose gradient by out is d_out [M, D].
inline RmsNormGradients rms_norm_backward(const RmsNormOperands& op, const Doubles& d_out) {
  RmsNormGradients grad{Doubles(op.residual.size(), 0.0), Doubles(op.weight.size(), 0.0)};
  for (std::int64_t m = 0; m < op.rows; ++m) {
    const double s = inverse_rms(op, m);
    double d_s = 0;  // out = residual s weight
    for (std::int64_t d = 0; d < op.channels; ++d) {
      const std::int64_t i = m * op.channels + d;
      d_s += d_out[i] * op.weight[d] * op.residual[i];
      grad.weight[d] += d_out[i] * op.residual[i] * s;
      grad.residual[i] += d_out[i] * op.weight[d] * s;
    }
    // d s / d residual = -s^3 residual / D
    for (std::int64_t d = 0; d < op.channels; ++d) {
      const std::int64_t i = m * op.channels + d;
      grad.residual[i] -= d_s * s * s * s * op.residual[i] / static_cast<double>(op.channels);
    }
  }
  return grad;
}

}  // namespace longstrand::reference
