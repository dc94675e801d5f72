// Cross entropy in double, as the formula of kernels/cross_entropy.hpp reads. Arrays are packed.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "tests/support/reference_math.hpp"

namespace longstrand::reference {

struct CrossEntropyOperands {
  std::int64_t rows, classes;        // M, V
  Doubles logits;                    // [M, V]
  std::vector<std::int32_t> target;  // [M]  -1: none
  Doubles weight;                    // [M]
};

/// log sum_v exp(logits[row, v]).
inline double log_sum_exp(const CrossEntropyOperands& op, std::int64_t row) {
  const auto begin = op.logits.begin() + row * op.classes;
  const double largest = *std::max_element(begin, begin + op.classes);
  double sum = 0;
  for (std::int64_t v = 0; v < op.classes; ++v) sum += std::exp(begin[v] - largest);
  return largest + std::log(sum);
}

/// [M]
inline Doubles cross_entropy(const CrossEntropyOperands& op) {
  Doubles loss(op.rows, 0.0);
  for (std::int64_t m = 0; m < op.rows; ++m) {
    if (op.target[m] < 0) continue;
    loss[m] = op.weight[m] * (log_sum_exp(op, m) - op.logits[m * op.classes + op.target[m]]);
  }
  return loss;
}

/// d_logits [M, V] of the sum of the losses.
inline Doubles cross_entropy_backward(const CrossEntropyOperands& op) {
  Doubles d_logits(op.logits.size(), 0.0);
  for (std::int64_t m = 0; m < op.rows; ++m) {
    if (op.target[m] < 0) continue;
    for (std::int64_t v = 0; v < op.classes; ++v) {
      const double probability = std::exp(op.logits[m * op.classes + v] - log_sum_exp(op, m));
      d_logits[m * op.classes + v] = op.weight[m] * (probability - (v == op.target[m] ? 1 : 0));
    }
  }
  return d_logits;
}

}  // namespace longstrand::reference
