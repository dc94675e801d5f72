#include "src/bundles.hpp"

#include <algorithm>

namespace longstrand {

std::int64_t Bundle::tokens() const {
  std::int64_t total = 0;
  for (const TrainingSequence* sequence : sequences) total += sequence->length;
  return total;
}

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
    bundle.chunk_tokens = bundle.lanes() * bundle.longest <= limits.whole_tokens
                              ? bundle.longest
                              : std::min(bundle.longest, limits.chunk_tokens);
    ++lane;
  }
  return bundles;
}

}  // namespace longstrand
