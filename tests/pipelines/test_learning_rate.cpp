#include <gtest/gtest.h>

#include "pipelines/learning_rate.hpp"

namespace longstrand::pipelines {
namespace {

constexpr LearningRate kCosine{.peak = 8e-3, .floor = 8e-4, .warmup_steps = 10, .steps = 110};

TEST(LearningRate, RisesLinearlyToItsPeak) {
  for (std::int64_t step = 1; step <= 10; ++step) {
    EXPECT_DOUBLE_EQ(kCosine.at(step), 8e-3 * static_cast<double>(step) / 10) << step;
  }
}

TEST(LearningRate, FallsFromPeakToFloorAndIsHalfWayInTheMiddle) {
  for (std::int64_t step = 10; step < 110; ++step) EXPECT_GT(kCosine.at(step), kCosine.at(step + 1)) << step;
  EXPECT_NEAR(kCosine.at(60), (8e-3 + 8e-4) / 2, 1e-12);
  EXPECT_DOUBLE_EQ(kCosine.at(110), 8e-4);
}

TEST(LearningRate, ConstantStaysAtThePeak) {
  auto constant = kCosine;
  constant.decay = Decay::constant;
  EXPECT_DOUBLE_EQ(constant.at(5), 4e-3);
  for (const std::int64_t step : {10, 60, 110}) EXPECT_DOUBLE_EQ(constant.at(step), 8e-3);
}

// Degenerate runs still get a finite rate at every step, the peak where there is nothing to decay over.
TEST(LearningRate, ShortRuns) {
  EXPECT_DOUBLE_EQ((LearningRate{.peak = 1, .floor = 0, .warmup_steps = 0, .steps = 1}).at(1), 1);
  EXPECT_DOUBLE_EQ((LearningRate{.peak = 1, .floor = 0, .warmup_steps = 0, .steps = 2}).at(2), 0);
  EXPECT_DOUBLE_EQ((LearningRate{.peak = 1, .floor = 0, .warmup_steps = 5, .steps = 5}).at(5), 1);
  EXPECT_DOUBLE_EQ((LearningRate{.peak = 1, .floor = 0, .warmup_steps = 8, .steps = 4}).at(4), 0.5);
}

}  // namespace
}  // namespace longstrand::pipelines
