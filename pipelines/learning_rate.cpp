#include "pipelines/learning_rate.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace longstrand::pipelines {

double LearningRate::at(std::int64_t step) const {
  if (step < warmup_steps) return peak * static_cast<double>(step) / static_cast<double>(warmup_steps);
  if (decay == Decay::constant) return peak;
  const std::int64_t first = std::max<std::int64_t>(warmup_steps, 1);  // the step at the peak
  if (steps <= first) return peak;
  const double progress =
      std::min(1.0, static_cast<double>(step - first) / static_cast<double>(steps - first));
  return floor + (peak - floor) * 0.5 * (1 + std::cos(std::numbers::pi * progress));
}

}  // namespace longstrand::pipelines
