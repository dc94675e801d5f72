// The products of kernels/linear.hpp in double, as the formulas read. Arrays are packed.
#pragma once

#include <cstdint>

#include "tests/support/reference_math.hpp"

namespace longstrand::reference {

struct LinearShape {
  std::int64_t rows, in, out;
};

/// y [M, out] of x [M, in] and weight [out, in].
inline Doubles linear(const LinearShape& shape, const Doubles& x, const Doubles& weight) {
  Doubles y(shape.rows * shape.out, 0.0);
  for (std::int64_t m = 0; m < shape.rows; ++m) {
    for (std::int64_t o = 0; o < shape.out; ++o) {
      for (std::int64_t i = 0; i < shape.in; ++i) {
        y[m * shape.out + o] += x[m * shape.in + i] * weight[o * shape.in + i];
      }
    }
  }
  return y;
}

/// d_x [M, in] of d_y [M, out].
inline Doubles linear_d_x(const LinearShape& shape, const Doubles& d_y, const Doubles& weight) {
  Doubles d_x(shape.rows * shape.in, 0.0);
  for (std::int64_t m = 0; m < shape.rows; ++m) {
    for (std::int64_t o = 0; o < shape.out; ++o) {
      for (std::int64_t i = 0; i < shape.in; ++i) {
        d_x[m * shape.in + i] += d_y[m * shape.out + o] * weight[o * shape.in + i];
      }
    }
  }
  return d_x;
}

/// d_weight [out, in] of d_y [M, out].
inline Doubles linear_d_weight(const LinearShape& shape, const Doubles& d_y, const Doubles& x) {
  Doubles d_weight(shape.out * shape.in, 0.0);
  for (std::int64_t m = 0; m < shape.rows; ++m) {
    for (std::int64_t o = 0; o < shape.out; ++o) {
      for (std::int64_t i = 0; i < shape.in; ++i) {
        d_weight[o * shape.in + i] += d_y[m * shape.out + o] * x[m * shape.in + i];
      }
    }
  }
  return d_weight;
}

}  // namespace longstrand::reference
