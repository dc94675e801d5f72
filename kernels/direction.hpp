// The direction in which a recurrent operation walks a lane.
#pragma once

#include <cstdint>

namespace longstrand {

/// forward: from the first token to the last; reverse: from the last valid one to the first. A state is
/// always that before the walk or after it, whichever end of the chunk that is.
enum class Direction : std::uint8_t { forward, reverse };

/// Where in a lane the tokens stand, counted in the order in which they are walked.
struct TokenOrder {
  std::int64_t first = 0;  // row of the walk's first token
  std::int64_t step = 1;   // from there to the next one's

  TokenOrder() = default;
  /// Of a lane whose first `valid` rows are no padding.
  constexpr TokenOrder(Direction direction, std::int64_t valid)
      : first(direction == Direction::forward ? 0 : valid - 1),
        step(direction == Direction::forward ? 1 : -1) {}

  constexpr std::int64_t row(std::int64_t token) const { return first + token * step; }
};

}  // namespace longstrand
