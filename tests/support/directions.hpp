// What the tests of operations that take a direction share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/direction.hpp"
#include "tests/support/guarded.hpp"

namespace longstrand {

inline constexpr Direction kDirections[] = {Direction::forward, Direction::reverse};

inline const char* direction_name(Direction direction) {
  return direction == Direction::forward ? "forward" : "reverse";
}

/// `from` [B, T, D] with the first valid[b] rows of lane b in reverse.
template <class T>
std::vector<double> flipped(const Guarded<T, 3>& from, const std::vector<double>& valid) {
  const auto [lanes, tokens, channels] = from.shape();
  std::vector<double> values = from.values();
  for (std::int64_t lane = 0; lane < lanes; ++lane) {
    double* const rows = values.data() + lane * tokens * channels;
    const auto count = static_cast<std::int64_t>(valid[lane]);
    for (std::int64_t t = 0; t < count / 2; ++t) {
      std::swap_ranges(rows + t * channels, rows + (t + 1) * channels, rows + (count - 1 - t) * channels);
    }
  }
  return values;
}

/// Where chunks of `size` of so many tokens begin, in the order in which they are walked.
inline std::vector<std::int64_t> chunk_begins(std::int64_t tokens, std::int64_t size, Direction direction) {
  std::vector<std::int64_t> begins;
  for (std::int64_t begin = 0; begin < tokens; begin += size) begins.push_back(begin);
  if (direction == Direction::reverse) std::reverse(begins.begin(), begins.end());
  return begins;
}

}  // namespace longstrand
