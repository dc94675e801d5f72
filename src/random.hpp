// Random numbers that are the same with every standard library.
#pragma once

#include <cmath>
#include <numbers>
#include <random>

namespace longstrand {

/// In [0, 1).
inline double uniform(std::mt19937_64& random) { return static_cast<double>(random() >> 11) * 0x1.0p-53; }

inline double uniform(std::mt19937_64& random, double low, double high) {
  return low + (high - low) * uniform(random);
}

/// Mean 0, standard deviation 1 (Box-Muller).
inline double normal(std::mt19937_64& random) {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform(random)));
  return radius * std::cos(2.0 * std::numbers::pi * uniform(random));
}

}  // namespace longstrand
