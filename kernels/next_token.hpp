// What a language model is to predict: after each token the next one.
#pragma once

#include "kernels/context.hpp"
#include "kernels/view.hpp"

namespace longstrand {

/// Token ids first to last.
struct TokenRange {
  std::uint8_t first = 0;
  std::uint8_t last = 255;
  constexpr bool contains(std::int32_t token) const { return token >= first && token <= last; }
};

/// target [B * T], as cross entropy takes it: the token after each of a chunk's, or kNoTarget where that one
/// is not among `predicted`, where there is none, and on padding. tokens [B, T]; next [B] is the token after
/// a lane's last valid one, negative where there is none; valid [B].
void next_token_targets(View<const std::uint8_t, 2> tokens, View<const std::int32_t, 1> next,
                        View<const std::int64_t, 1> valid, TokenRange predicted, View<std::int32_t, 1> target,
                        Context& context);

}  // namespace longstrand
