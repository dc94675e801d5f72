#pragma once

#include <cstdint>

namespace longstrand::pipelines {

enum class Decay : std::uint8_t { cosine, constant };

/// Linear warm-up to `peak`, which is reached at step `warmup_steps`, then `peak` (constant) or half a cosine
/// down to `floor`, which is reached at the last step. Steps count from 1.
struct LearningRate {
  double peak = 0;
  double floor = 0;
  std::int64_t warmup_steps = 0;
  std::int64_t steps = 0;
  Decay decay = Decay::cosine;

  double at(std::int64_t step) const;
};

}  // namespace longstrand::pipelines
