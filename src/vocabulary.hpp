// What the model needs to know of token ids (HyenaDNA's and Caduceus' vocabulary).
#pragma once

#include <cstdint>

#include "kernels/cross_entropy.hpp"
#include "kernels/next_token.hpp"

namespace longstrand {

inline constexpr std::uint8_t kFirstBase = 7;  // A, C, G, T are 7 to 10
inline constexpr std::uint8_t kLastBase = 10;
inline constexpr std::uint8_t kMaskToken = 3;        // [MASK]
inline constexpr std::uint8_t kPaddingToken = 4;     // [PAD]
inline constexpr std::uint8_t kNoTargetToken = 255;  // among targets: nothing is to be predicted here
inline constexpr std::int64_t kVocabulary = 12;      // token ids that readers produce are below this

/// A <-> T, C <-> G; every other token is its own complement.
constexpr std::uint8_t complement(std::uint8_t token) {
  return kFirstBase <= token && token <= kLastBase ? kFirstBase + kLastBase - token : token;
}

/// What a language model predicts: only A, C, G and T.
inline constexpr TokenRange kPredictedTokens{kFirstBase, kLastBase};
constexpr std::int32_t next_token_target(std::uint8_t token) {
  return kPredictedTokens.contains(token) ? token : kNoTarget;
}

}  // namespace longstrand
