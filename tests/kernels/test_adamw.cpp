#include <gtest/gtest.h>

#include "kernels/adamw.hpp"
#include "tests/support/each_target.hpp"
#include "tests/support/guarded.hpp"
#include "tests/support/random.hpp"
#include "tests/support/reference_adamw.hpp"
#include "tests/support/tolerances.hpp"

namespace longstrand {
namespace {

struct Case {
  std::int64_t count;
  double learning_rate, beta2, weight_decay, gradient;
  const char* reason;
};

const std::vector<Case> kCases = {
    {1, 1e-3, 0.95, 0, 1, "the smallest"},
    {67, 8e-3, 0.95, 0.1, 1, "as in pretraining, a tail"},
    {37, 1e-3, 0.999, 0.01, 1e-3, "PyTorch's defaults, small gradients"},
    {16, 1e-3, 0.95, 0.1, 1e-9, "gradients below epsilon"},
    {16, 1e-3, 0.95, 0.1, 1e6, "gradients that clipping would have met"},
    {5, 0, 0.95, 0.1, 1, "a rate of zero changes no weight"},
};

void check_steps(const Case& c) {
  constexpr int kSteps = 25;
  Context context{device_under_test()};
  Random random(static_cast<std::uint64_t>(c.count));
  Guarded<float, 1> weight({c.count}), gradient({c.count}), m({c.count}), v({c.count});
  weight.fill([&] { return random.normal(); });
  m.fill([] { return 0.0; });
  v.fill([] { return 0.0; });
  std::vector<reference::AdamW> expected;
  for (const double value : weight.values()) {
    expected.push_back({c.learning_rate, 0.9, c.beta2, 1e-8, c.weight_decay, value});
  }
  for (int step = 1; step <= kSteps; ++step) {
    gradient.fill([&] { return random.normal(0, c.gradient); });
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i].update(0.5 * gradient.values()[i]);
    adamw_step(weight, gradient, m, v,
               {.learning_rate = c.learning_rate,
                .beta2 = c.beta2,
                .weight_decay = c.weight_decay,
                .gradient_scale = 0.5,
                .step = step},
               context);
  }
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double rounding = 1e-6 * std::max(std::abs(expected[i].weight), kSteps * c.learning_rate);
    EXPECT_NEAR(weight.values()[i], expected[i].weight, rounding);
    EXPECT_NEAR(v.values()[i], expected[i].v, 2e-6 * expected[i].v);  // a rounding of 6e-8 a step
  }
}

LONGSTRAND_DEVICE_TEST(AdamW, FollowsTheReferenceOverManySteps) {
  on_each_target([] {
    for (const Case& each : kCases) {
      SCOPED_TRACE(each.reason);
      check_steps(each);
    }
  });
}

/// The first update is the learning rate in the gradient's direction, whatever the gradient's size.
LONGSTRAND_DEVICE_TEST(AdamW, FirstStepIsTheLearningRate) {
  Context context{device_under_test()};
  Guarded<float, 1> weight({3}), gradient({3}), m({3}), v({3});
  for (Guarded<float, 1>* array : {&weight, &m, &v}) array->fill([] { return 0.0; });
  gradient.assign({1e-3, -1.0, 1e3});
  adamw_step(weight, gradient, m, v, {.learning_rate = 0.125}, context);
  expect_near("weight", weight.values(), {-0.125, 0.125, -0.125}, {2e-5, "epsilon beside the smallest"});
}

LONGSTRAND_DEVICE_TEST(SumOfSquares, AgreesWithASumInDouble) {
  on_each_target([] {
    Context context{device_under_test()};
    Random random(5);
    for (const std::int64_t count : {0, 1, 7, 64, 1001}) {
      Guarded<float, 1> values({count});
      values.fill([&] { return random.normal(0, 1e15); });  // squares past the range of float
      double expected = 0;
      for (const double value : values.values()) expected += value * value;
      const double sum = sum_of_squares(values, context);
      EXPECT_NEAR(sum, expected, 1e-13 * expected);
      EXPECT_EQ(sum_of_squares(values, context), sum) << "not the same bits a second time";
    }
  });
}

LONGSTRAND_DEVICE_TEST(AdamW, RefusesOperandsThatDoNotFit) {
  Context context{device_under_test()};
  Guarded<float, 1> fits({4}), shorter({3});
  EXPECT_THROW(adamw_step(fits, shorter, fits, fits, {}, context), std::logic_error);
  EXPECT_THROW(adamw_step(fits, fits, fits, shorter, {}, context), std::logic_error);
}

}  // namespace
}  // namespace longstrand
