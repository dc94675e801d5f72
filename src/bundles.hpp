// How the sequences of a training batch share a device: alone, or side by side as the lanes of a bundle.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "src/trainer.hpp"

namespace longstrand {

/// Sequences that go through the model together, one a lane, chunk by chunk. Behind the end of the shorter
/// ones comes padding.
struct Bundle {
  std::vector<const TrainingSequence*> sequences;  // [B], none of them empty
  std::int64_t first_lane = 0;                     // its first one's number among all lanes of the batch
  std::int64_t longest = 0;                        // tokens of its longest sequence
  std::int64_t chunk_tokens = 0;
  bool by_layers = false;  // its chunks go through each layer together
  std::int64_t lanes() const { return std::ssize(sequences); }
  std::int64_t chunks() const { return (longest + chunk_tokens - 1) / chunk_tokens; }
  std::int64_t tokens() const;  // padding does not count
};

struct BundleLimits {
  std::int64_t lanes = 1;         // at most so many sequences in a bundle
  std::int64_t whole_tokens = 0;  // a bundle of no more tokens, padding included, runs as one chunk
  std::int64_t chunk_tokens = 1;  // at most, of the longer sequences, which run alone
  // Longer ones of no more tokens run by layers, in chunks of at most so many.
  std::int64_t by_layers_tokens = 0, by_layers_chunk_tokens = 1;
};

/// All sequences of the batch that are not empty. With one lane in the batch's order, else the shortest
/// first, so that there is little padding.
std::vector<Bundle> bundle_up(std::span<const TrainingSequence> batch, const BundleLimits& limits);

}  // namespace longstrand
