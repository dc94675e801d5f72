#include "src/training_limits.hpp"

#include <algorithm>

#include "kernels/memory.hpp"

namespace longstrand {
namespace {

constexpr std::int64_t kKiB = 1024, kMiB = kKiB * 1024, kGiB = kMiB * 1024;

/// Chunks long enough for the products to run at full speed, short enough for a layer's activations to stay
/// in cache. A sequence whose activations take little runs as one chunk, which spares the pass for boundary
/// states: a quarter faster. The same for any number of threads, on which no result may depend.
TrainingLimits cpu_limits(const TrainingBytes& bytes) {
  return {.bundles = {.lanes = 1,
                      .whole_tokens = 64 * kMiB / bytes.saved,
                      .chunk_tokens = 512,
                      .by_layers_chunk_tokens = 512},
          .kept_states = 128};
}

/// A GPU does not mind whether tokens are of one sequence or of many, but wants many at a time: an H200 takes
/// 20 to 30 % longer for each of 25 Ki tokens of d_model 256 than for each of 128 Ki. What is kept of a chunk
/// or, by layers, of a sequence is the most of all memory, weights and optimizer aside.
TrainingLimits gpu_limits(const TrainingBytes& bytes, std::int64_t memory_bytes) {
  // Up to here, spare the second forward pass: 350,000 tokens of d_model 256, 8 layers, bfloat16.
  constexpr std::int64_t kWhole_bytes = 24 * kGiB;
  // Else this is enough, 72 Ki tokens of that model, where one pass over 2^20 tokens would keep 71 GiB,
  constexpr std::int64_t kChunk_bytes = 5 * kGiB;
  // but for wide and deep models, which get more.
  constexpr std::int64_t kFewest_tokens = 16 * kKiB;
  constexpr std::int64_t kLargestChunk_bytes = 15 * kGiB / 2;
  constexpr std::int64_t kLanes = kKiB;  // whose states take less than their tokens
  constexpr std::int64_t kStates_bytes = 2 * kGiB;
  constexpr std::int64_t kFewestStates = 128, kMostStates = 4 * kKiB;
  constexpr std::int64_t kTrails_bytes = 7 * kGiB / 8;  // of 28 such chunks
  // Up to here, layer by layer: 130,000 tokens of d_model 768, 24 layers, bfloat16, or 960,000 of the first,
  constexpr std::int64_t kByLayers_bytes = 11 * kGiB / 2;
  // and of a layer at a time so much: 69,000 and 207,000 tokens.
  constexpr std::int64_t kLayer_bytes = 7 * kGiB / 4;
  const auto tokens_of = [&](std::int64_t size_bytes, std::int64_t share) {
    return std::min(size_bytes, memory_bytes / share) / bytes.saved;
  };
  std::int64_t chunk =
      std::max(tokens_of(kChunk_bytes, 8), std::min(kFewest_tokens, tokens_of(kLargestChunk_bytes, 4)));
  if (chunk > kKiB) chunk -= chunk % kKiB;
  return {.bundles = {.lanes = kLanes,
                      .whole_tokens = tokens_of(kWhole_bytes, 4),
                      .chunk_tokens = std::max<std::int64_t>(chunk, 1),
                      .by_layers_tokens = std::min(kByLayers_bytes, memory_bytes / 16) / bytes.by_layers,
                      .by_layers_chunk_tokens = std::max<std::int64_t>(
                          std::min(kLayer_bytes, memory_bytes / 64) / bytes.of_layer, 1)},
          .kept_states = std::clamp(std::min(kStates_bytes, memory_bytes / 16) / bytes.state, kFewestStates,
                                    kMostStates),
          .trails_bytes = std::min(kTrails_bytes, memory_bytes / 16)};
}

}  // namespace

TrainingLimits training_limits(const ExecutionOptions& execution, const TrainingBytes& bytes) {
  TrainingLimits limits = execution.device.kind == DeviceKind::cuda
                              ? gpu_limits(bytes, device_memory_bytes(execution.device))
                              : cpu_limits(bytes);
  BundleLimits& bundles = limits.bundles;
  if (execution.lanes > 0) bundles.lanes = execution.lanes;
  if (execution.chunk_tokens > 0) {
    bundles.chunk_tokens = bundles.whole_tokens = bundles.by_layers_chunk_tokens = execution.chunk_tokens;
    bundles.by_layers_tokens = 0;
  }
  if (execution.by_layers_tokens >= 0) bundles.by_layers_tokens = execution.by_layers_tokens;
  return limits;
}

}  // namespace longstrand
