#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pipelines/permutation.hpp"
#include "pipelines/token_store.hpp"
#include "src/trainer.hpp"

namespace longstrand::pipelines {

enum class Order : std::uint8_t { shuffle, sequential };

struct SamplerOptions {
  std::int64_t batch = 1;  // sequences a step
  Order order = Order::shuffle;
  std::uint64_t seed = 0;
  bool move_windows = false;        // shuffle: every epoch shifts the windows within their parts
  bool reverse_complement = false;  // every second sequence, drawn by the seed, is read backwards
  double masked = 0;                // share of the bases that are to be told (src/masking.hpp); 0: no masks
  std::vector<std::string> classes{};  // labels; sequences of all classes take turns, if there are any
};

/// The batches of a training run over the windows of a store. What step s trains on depends on the options
/// and s alone; masks are other ones in every step. An epoch visits every window once; with classes, every
/// window of a class as often as any other of it.
class WindowSampler {
 public:
  /// The store must outlive the sampler and its sequences. Throws io::InputError if a class has no training
  /// window.
  WindowSampler(const TokenStore& store, const SamplerOptions& options);

  /// The sequences of a step, which count from 0.
  std::vector<TrainingSequence> batch(std::int64_t step) const;
  std::int64_t steps_per_epoch() const;
  /// At most `most` validation windows, evenly spread over all; always the same, masks too.
  std::vector<TrainingSequence> validation(std::int64_t most) const;

  struct Draw {
    StoredWindow window;
    bool reversed = false;
  };
  /// The sequence at a position of the run: step * options.batch + index in the batch.
  Draw draw(std::int64_t position) const;

 private:
  struct Group {  // windows [begin, begin + count) of the store, drawn in rounds of `count`
    std::int64_t begin;
    std::int64_t count;
  };
  StoredWindow moved(const StoredWindow& window, std::int64_t round) const;
  TrainingSequence with_mask(TrainingSequence sequence, std::uint64_t seed) const;

  const TokenStore& store_;
  SamplerOptions options_;
  std::vector<Group> groups_;
};

}  // namespace longstrand::pipelines
