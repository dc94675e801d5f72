// Gradients by central differences, to check the references' own backward formulas with.
#pragma once

#include <vector>

namespace longstrand {

/// The gradient of loss() by the elements of `x`, which loss() reads. x is left as it was.
template <class Loss>
std::vector<double> central_difference(std::vector<double>& x, Loss loss) {
  constexpr double kStep = 1e-5;
  std::vector<double> gradient;
  for (double& element : x) {
    const double before = element;
    element = before + kStep;
    const double above = loss();
    element = before - kStep;
    const double below = loss();
    element = before;
    gradient.push_back((above - below) / (2 * kStep));
  }
  return gradient;
}

inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b.at(i);
  return sum;
}

}  // namespace longstrand
