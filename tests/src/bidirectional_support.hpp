// Small bidirectional models, and what they are asked.
#pragma once

#include "model_support.hpp"
#include "src/vocabulary.hpp"

namespace longstrand::test {

struct ModelCase {
  const char* name;
  ModelConfig config;
};

inline ModelConfig bidirectional(ModelConfig changes) {
  changes.mixer = kBidirectionalMixer;
  changes.d_model = 24;
  changes.n_layer = 3;
  return changes;
}

inline const auto kModels = testing::Values(
    ModelCase{"sum", bidirectional({})},
    ModelCase{"product", bidirectional({.combination = Combination::multiply, .tie_directions = false})},
    ModelCase{"strands", bidirectional({.equivariant = true})},
    ModelCase{"strands_stay",
              bidirectional(
                  {.combination = Combination::multiply, .equivariant = true, .exchange_residuals = false})});

inline Tokens reverse_complement(const Tokens& tokens) {
  Tokens other(tokens.rbegin(), tokens.rend());
  std::ranges::transform(other, other.begin(), complement);
  return other;
}

/// Every third position, if there is an A, C, G or T.
inline std::vector<Tokens> some_targets(const std::vector<Tokens>& records) {
  std::vector<Tokens> targets;
  for (const Tokens& record : records) {
    Tokens of_record(record.size(), kNoTargetToken);
    for (std::size_t i = 0; i < record.size(); i += 3) {
      if (kPredictedTokens.contains(record[i])) of_record[i] = record[i];
    }
    targets.push_back(of_record);
  }
  return targets;
}

}  // namespace longstrand::test
