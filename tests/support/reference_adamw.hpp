// AdamW in double for one parameter, in the order of the paper's algorithm 2 (PyTorch's torch.optim.AdamW).
#pragma once

#include <cmath>
#include <cstdint>

namespace longstrand::reference {

struct AdamW {
  double learning_rate, beta1, beta2, epsilon, weight_decay;
  double weight;
  double m = 0;
  double v = 0;
  std::int64_t step = 0;

  void update(double gradient) {
    ++step;
    const double exponent = static_cast<double>(step);
    m = beta1 * m + (1 - beta1) * gradient;
    v = beta2 * v + (1 - beta2) * gradient * gradient;
    const double m_hat = m / (1 - std::pow(beta1, exponent));
    const double v_hat = v / (1 - std::pow(beta2, exponent));
    weight -= learning_rate * (m_hat / (std::sqrt(v_hat) + epsilon) + weight_decay * weight);
  }
};

}  // namespace longstrand::reference
