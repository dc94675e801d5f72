#include "pipelines/window_sampler.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "io/alphabet.hpp"
#include "io/input_error.hpp"
#include "src/masking.hpp"
#include "src/seeded_hash.hpp"

namespace longstrand::pipelines {
namespace {

// What a hash is drawn for, so that equal numbers do not make equal draws.
enum Purpose : std::uint64_t { kOrder, kShift, kStrand, kTurn, kMask, kValidationMask };

TrainingSequence sequence_of(const TokenStore& store, const StoredWindow& window, bool reversed) {
  TrainingSequence sequence{
      .length = window.length, .read = {}, .label = static_cast<std::int32_t>(window.label)};
  sequence.read = [&store, window, reversed](std::int64_t begin, std::span<std::uint8_t> tokens) {
    if (!reversed) {
      store.read(window.start + begin, tokens);
      return;
    }
    store.read(window.start + window.length - begin - std::ssize(tokens), tokens);
    std::reverse(tokens.begin(), tokens.end());
    std::transform(tokens.begin(), tokens.end(), tokens.begin(), io::complement);
  };
  return sequence;
}

bool mostly_bases(const TokenStore& store, const StoredWindow& window) {
  std::vector<std::uint8_t> tokens(static_cast<std::size_t>(window.length));
  store.read(window.start, tokens);
  const auto bases = std::count_if(tokens.begin(), tokens.end(), io::is_base);
  return 2 * bases >= window.length;
}

}  // namespace

WindowSampler::WindowSampler(const TokenStore& store, const SamplerOptions& options)
    : store_(store), options_(options) {
  if (options.classes.empty()) {
    groups_.push_back({0, store.window_count(Split::train)});
    return;
  }
  for (std::int64_t label = 0; label < std::ssize(options.classes); ++label) {
    const std::int64_t begin = store.class_begin(Split::train, label);
    groups_.push_back({begin, store.class_begin(Split::train, label + 1) - begin});
    if (groups_.back().count == 0) {
      throw io::InputError(
          fmt::format("the class '{}' of the manifest has no training window: give it more sequence, a "
                      "smaller window or a smaller held-out part",
                      options.classes[static_cast<std::size_t>(label)]));
    }
  }
}

std::int64_t WindowSampler::steps_per_epoch() const {
  return (store_.window_count(Split::train) + options_.batch - 1) / options_.batch;
}

WindowSampler::Draw WindowSampler::draw(std::int64_t position) const {
  const auto group_count = std::ssize(groups_);
  const std::int64_t turn = position / group_count;  // each turn takes one window of every group
  const Permutation group_order(group_count, seeded_hash(options_.seed, kTurn, turn));
  const std::int64_t group_index = group_order(position % group_count);
  const auto& group = groups_[static_cast<std::size_t>(group_index)];

  const std::int64_t round = turn / group.count;
  std::int64_t index = turn % group.count;
  if (options_.order == Order::shuffle) {
    index = Permutation(group.count, seeded_hash(options_.seed, kOrder, group_index, round))(index);
  }
  auto window = store_.window(Split::train, group.begin + index);
  if (options_.order == Order::shuffle && options_.move_windows) window = moved(window, round);
  const bool reversed =
      options_.reverse_complement && (seeded_hash(options_.seed, kStrand, position) & 1) != 0;
  return {window, reversed};
}

// All windows of a round move by the same distance, so that they still do not overlap, but for those that
// reach the end of their part. A window that would then be mostly N stays where it is.
StoredWindow WindowSampler::moved(const StoredWindow& window, std::int64_t round) const {
  const double share = unit_interval(seeded_hash(options_.seed, kShift, round));
  StoredWindow shifted = window;
  shifted.start +=
      std::min(window.room, static_cast<std::int64_t>(share * static_cast<double>(window.length)));
  return shifted.start == window.start || mostly_bases(store_, shifted) ? shifted : window;
}

TrainingSequence WindowSampler::with_mask(TrainingSequence sequence, std::uint64_t seed) const {
  return options_.masked > 0 ? masked(std::move(sequence), {.share = options_.masked}, seed) : sequence;
}

std::vector<TrainingSequence> WindowSampler::batch(std::int64_t step) const {
  std::vector<TrainingSequence> sequences;
  for (std::int64_t i = 0; i < options_.batch; ++i) {
    const std::int64_t position = step * options_.batch + i;
    const auto [window, reversed] = draw(position);
    sequences.push_back(
        with_mask(sequence_of(store_, window, reversed), seeded_hash(options_.seed, kMask, position)));
  }
  return sequences;
}

std::vector<TrainingSequence> WindowSampler::validation(std::int64_t most) const {
  const std::int64_t all = store_.window_count(Split::valid);
  const std::int64_t taken = std::min(all, most);
  std::vector<TrainingSequence> sequences;
  for (std::int64_t i = 0; i < taken; ++i) {
    const auto index = static_cast<std::int64_t>(static_cast<double>(i) * static_cast<double>(all) /
                                                 static_cast<double>(taken));
    const auto sequence = sequence_of(store_, store_.window(Split::valid, index), /*reversed=*/false);
    sequences.push_back(with_mask(sequence, seeded_hash(options_.seed, kValidationMask, index)));
  }
  return sequences;
}

}  // namespace longstrand::pipelines
