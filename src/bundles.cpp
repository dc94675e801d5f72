#include "src/bundles.hpp"

#include <algorithm>

namespace longstrand {

std::int64_t Bundle::tokens() const {
  std::int64_t total = 0;
  for (const TrainingSequence* sequence : sequences) total += sequence->length;
  return total;
}

namespace {

/// For chunks of a sequence that are about as long as one another, so that the last one, which is spared some
/// of the work, is no shorter.
std::int64_t even_chunk_tokens(std::int64_t length, std::int64_t most_tokens) {
  constexpr std::int64_t kMultiple = 64;  // what kernels take at a time
  const std::int64_t chunks = (length + most_tokens - 1) / most_tokens;
  const std::int64_t even = (length + chunks - 1) / chunks;
  return std::min((even + kMultiple - 1) / kMultiple * kMultiple, most_tokens);
}

}  // namespace

std::vector<Bundle> bundle_up(std::span<const TrainingSequence> batch, const BundleLimits& limits) {
  std::vector<const TrainingSequence*> sequences;
  for (const TrainingSequence& sequence : batch) {
    if (sequence.length > 0) sequences.push_back(&sequence);
  }
  if (limits.lanes > 1) {
    std::ranges::stable_sort(sequences, {}, &TrainingSequence::length);
  }
  std::vector<Bundle> bundles;
  std::int64_t lane = 0;
  for (const TrainingSequence* sequence : sequences) {
    const bool joins = !bundles.empty() && bundles.back().lanes() < limits.lanes &&
                       (bundles.back().lanes() + 1) * sequence->length <= limits.whole_tokens;
    if (!joins) bundles.push_back({.sequences = {}, .first_lane = lane});
    Bundle& bundle = bundles.back();
    bundle.sequences.push_back(sequence);
    bundle.longest = sequence->length;  // sorted, or alone
    const bool whole = bundle.lanes() * bundle.longest <= limits.whole_tokens;
    bundle.by_layers = !whole && bundle.longest <= limits.by_layers_tokens;
    const std::int64_t most = bundle.by_layers ? limits.by_layers_chunk_tokens : limits.chunk_tokens;
    bundle.chunk_tokens = whole ? bundle.longest : even_chunk_tokens(bundle.longest, most);
    ++lane;
  }
  return bundles;
}

}  // namespace longstrand
