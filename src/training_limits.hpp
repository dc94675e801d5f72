// How much of a sequence causal training takes at a time, by what there is of memory.
#pragma once

#include <cstdint>

#include "src/bundles.hpp"
#include "src/execution.hpp"

namespace longstrand {

/// What a model takes for backward, in bytes.
struct TrainingBytes {
  std::int64_t saved = 0, of_layer = 0;  // of a token, kept by all layers and by one
  std::int64_t by_layers = 0;  // of a token, layer by layer: all outputs, the residual, its gradient
  std::int64_t state = 0;      // of a lane
};

/// How a device's memory is shared out.
struct TrainingLimits {
  BundleLimits bundles;
  std::int64_t kept_states = 0;  // a level (src/chunk_major_trainer.cpp)
  std::int64_t trails_bytes = 0;
};

/// On a CPU the same for any number of threads.
TrainingLimits training_limits(const ExecutionOptions& execution, const TrainingBytes& bytes);

}  // namespace longstrand
