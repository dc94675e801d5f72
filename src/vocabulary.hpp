// What the model needs to know of token ids (HyenaDNA's and Caduceus' vocabulary).
#pragma once

#include <cstdint>

#include "kernels/cross_entropy.hpp"

namespace longstrand {

inline constexpr std::uint8_t kFirstBase = 7;  // A, C, G, T are 7 to 10
inline constexpr std::uint8_t kLastBase = 10;
inline constexpr std::int64_t kVocabulary = 12;  // token ids that readers produce are below this

/// A token as a language model's target: only A, C, G and T are predicted.
constexpr std::int32_t next_token_target(std::uint8_t token) {
  return token >= kFirstBase && token <= kLastBase ? token : kNoTarget;
}

}  // namespace longstrand
