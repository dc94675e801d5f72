// Random numbers of the tests. One seed for a whole run: printed when first used, set by
// LONGSTRAND_TEST_SEED.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

namespace longstrand {

inline std::uint64_t test_seed() {
  static const std::uint64_t seed = [] {
    const char* text = std::getenv("LONGSTRAND_TEST_SEED");
    const std::uint64_t value = text ? std::strtoull(text, nullptr, 10) : 20'061'019;
    std::printf("LONGSTRAND_TEST_SEED=%llu\n", static_cast<unsigned long long>(value));
    return value;
  }();
  return seed;
}

/// A stream of numbers of its own for every `stream`: tests do not depend on each other's order.
class Random {
 public:
  explicit Random(std::uint64_t stream) : engine_(test_seed() + 0x9e3779b97f4a7c15U * (stream + 1)) {}

  double uniform(double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(engine_);
  }
  double normal(double mean = 0, double deviation = 1) {
    return std::normal_distribution<double>(mean, deviation)(engine_);
  }
  /// Both ends included.
  std::int64_t integer(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(engine_);
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace longstrand
