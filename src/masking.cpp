#include "src/masking.hpp"

#include <utility>

#include "src/seeded_hash.hpp"
#include "src/vocabulary.hpp"

namespace longstrand {
namespace {

constexpr std::uint64_t kChoice = 0, kFate = 1, kBase = 2;  // what a random number is for

bool is_target(std::uint8_t token, std::int64_t position, const MaskRule& rule, std::uint64_t seed) {
  return kPredictedTokens.contains(token) && unit_interval(seeded_hash(seed, position, kChoice)) < rule.share;
}

/// Of a token that is a target.
std::uint8_t as_seen(std::uint8_t token, std::int64_t position, const MaskRule& rule, std::uint64_t seed) {
  const double fate = unit_interval(seeded_hash(seed, position, kFate));
  if (fate < rule.masked) return kMaskToken;
  if (fate >= rule.masked + rule.replaced) return token;
  constexpr std::uint64_t kBases = kLastBase - kFirstBase + 1;
  return static_cast<std::uint8_t>(kFirstBase + seeded_hash(seed, position, kBase) % kBases);
}

}  // namespace

TrainingSequence masked(TrainingSequence clean, const MaskRule& rule, std::uint64_t seed) {
  const auto read_with = [truth = std::move(clean.read)](auto change) {
    return [truth, change](std::int64_t begin, std::span<std::uint8_t> tokens) {
      truth(begin, tokens);
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        tokens[i] = change(tokens[i], begin + static_cast<std::int64_t>(i));
      }
    };
  };
  clean.read = read_with([rule, seed](std::uint8_t token, std::int64_t position) {
    return is_target(token, position, rule, seed) ? as_seen(token, position, rule, seed) : token;
  });
  clean.read_targets = read_with([rule, seed](std::uint8_t token, std::int64_t position) {
    return is_target(token, position, rule, seed) ? token : kNoTargetToken;
  });
  return clean;
}

}  // namespace longstrand
