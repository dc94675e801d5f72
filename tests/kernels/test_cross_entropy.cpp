#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/cross_entropy.hpp"
#include "tests/support/central_difference.hpp"
#include "tests/support/each_target.hpp"
#include "tests/support/guarded.hpp"
#include "tests/support/random.hpp"
#include "tests/support/reference_cross_entropy.hpp"
#include "tests/support/tolerances.hpp"

namespace longstrand {
namespace {

using reference::Doubles;

constexpr float kScale = 0.25F;  // a power of two: the expected gradients are exact multiples

struct Case {
  std::int64_t rows, classes, gap;
  double scale;  // of the logits
  bool weighted;
  const char* reason;
};

const std::vector<Case> kCases = {
    {1, 1, 0, 1, false, "the smallest: a single class is certain"},
    {64, 16, 0, 2, false, "a chunk's bases"},
    {9, 16, 0, 2, true, "soft-masked bases weighted"},
    {7, 6, 2, 2, false, "a classifier's classes, fewer than a vector"},
    {5, 37, 3, 2, true, "a tail, gaps between the rows"},
    {1000, 12, 4, 2, true, "more rows than a block of a GPU has"},
    {3, 300, 0, 5, false, "as many classes as there will be"},
    {5, 16, 0, 1e4, false, "logits whose exponentials overflow"},
    {5, 16, 0, 1e-3, false, "logits close to each other"},
};

struct Operands {
  explicit Operands(const Case& c)
      : random(static_cast<std::uint64_t>(c.rows * 1009 + c.classes)),
        logits({c.rows, c.classes}, c.gap),
        target({c.rows}),
        weight({c.rows}),
        loss({c.rows}),
        weighted(c.weighted) {
    logits.fill([&] { return random.normal(0, c.scale); });
    std::int64_t row = 0;  // every third row has no target, but not the first
    target.fill(
        [&] { return static_cast<double>(++row % 3 == 0 ? kNoTarget : random.integer(0, c.classes - 1)); });
    weight.fill([&] { return c.weighted ? random.uniform(0, 2) : 1.0; });
  }
  CrossEntropyInput input() {
    return {logits, target, weighted ? View<const float, 1>(weight) : View<const float, 1>()};
  }
  reference::CrossEntropyOperands as_reference(const Case& c) const {
    std::vector<std::int32_t> targets;
    for (const double value : target.values()) targets.push_back(static_cast<std::int32_t>(value));
    return {c.rows, c.classes, logits.values(), targets, weight.values()};
  }

  Random random;
  Guarded<float, 2> logits;
  Guarded<std::int32_t, 1> target;
  Guarded<float, 1> weight;
  Guarded<float, 1> loss;
  bool weighted;
  Context context{device_under_test()};
};

template <class T>
void check_backward(const Case& c) {
  Operands op(c);
  Guarded<T, 2> d_logits({c.rows, c.classes}, c.gap + 1);
  cross_entropy_backward<T>(op.input(), kScale, op.loss, d_logits, op.context);
  Doubles expected = reference::cross_entropy_backward(op.as_reference(c));
  for (double& element : expected) element *= kScale;
  expect_near("d_logits", d_logits.values(), expected, backward_tolerance<T>());
  expect_near("loss", op.loss.values(), reference::cross_entropy(op.as_reference(c)), tolerance::kForward);
}

LONGSTRAND_DEVICE_TEST(CrossEntropy, AgreesWithTheReference) {
  on_each_target([] {
    for (const Case& each : kCases) {
      SCOPED_TRACE(each.reason);
      Operands op(each);
      cross_entropy_forward(op.input(), op.loss, op.context);
      expect_near("loss", op.loss.values(), reference::cross_entropy(op.as_reference(each)),
                  tolerance::kForward);
      check_backward<float>(each);
      check_backward<bfloat16>(each);
    }
  });
}

TEST(CrossEntropy, ReferenceBackwardIsTheSlopeOfItsForward) {
  const Case c{4, 5, 0, 2, true, ""};
  reference::CrossEntropyOperands op = Operands(c).as_reference(c);
  const auto loss = [&] { return dot(reference::cross_entropy(op), Doubles(4, 1.0)); };
  expect_near("d_logits", reference::cross_entropy_backward(op), central_difference(op.logits, loss),
              tolerance::kDifferences);
}

/// A uniform guess costs log V, whatever the level of the logits.
LONGSTRAND_DEVICE_TEST(CrossEntropy, DependsOnDifferencesOfLogitsOnly) {
  on_each_target([] {
    for (const double level : {-1e30, -100.0, 0.0, 100.0, 1e30}) {
      Operands op({3, 12, 0, 1, false, ""});
      op.logits.fill([&] { return level; });
      op.target.fill([] { return 5.0; });
      cross_entropy_forward(op.input(), op.loss, op.context);
      expect_near("loss", op.loss.values(), Doubles(3, std::log(12.0)), tolerance::kForward);
    }
  });
}

LONGSTRAND_DEVICE_TEST(CrossEntropy, LetsNaNThrough) {
  on_each_target([] {
    for (const double broken : {std::numeric_limits<double>::quiet_NaN(), 1e39}) {  // 1e39: infinity in float
      Operands op({1, 12, 0, 1, false, ""});
      std::int64_t v = 0;
      op.logits.fill([&] { return v++ == 7 ? broken : 0.0; });
      op.target.fill([] { return 2.0; });
      cross_entropy_forward(op.input(), op.loss, op.context);
      EXPECT_FALSE(std::isfinite(op.loss.values()[0])) << "a diverged model looks sound";
    }
  });
}

LONGSTRAND_DEVICE_TEST(CrossEntropy, MasksClassesByMinusInfinity) {
  on_each_target([] {
    Operands op({2, 16, 0, 1, false, ""});
    std::int64_t v = 0;
    op.logits.fill([&] { return v++ % 16 < 4 ? 0.0 : -std::numeric_limits<double>::infinity(); });
    op.target.fill([] { return 1.0; });
    Guarded<float, 2> d_logits({2, 16});
    cross_entropy_backward<float>(op.input(), 1.0F, op.loss, d_logits, op.context);
    expect_near("loss", op.loss.values(), Doubles(2, std::log(4.0)), tolerance::kForward);
    Doubles expected(32, 0.0);
    for (const std::size_t row : {0U, 16U}) {
      for (std::size_t i = 0; i < 4; ++i) expected[row + i] = i == 1 ? -0.75 : 0.25;
    }
    expect_near("d_logits", d_logits.values(), expected, tolerance::kForward);
  });
}

void check_totals(const Case& c) {
  Operands op(c);
  Guarded<double, 1> totals({3});
  totals.assign({0.5, 3, 2});  // added to
  cross_entropy_forward(op.input(), op.loss, op.context);
  cross_entropy_totals(op.input(), op.loss, totals, op.context);

  Doubles expected = {0.5, 3, 2};
  const Doubles logits = op.logits.values();
  const Doubles loss = op.loss.values();
  const Doubles target = op.target.values();
  for (std::int64_t m = 0; m < c.rows; ++m) {
    if (target[m] == kNoTarget) continue;
    const auto row = logits.begin() + m * c.classes;
    expected[0] += loss[m];
    expected[1] += 1;
    expected[2] += static_cast<double>(std::max_element(row, row + c.classes) - row) == target[m];
  }
  const Doubles actual = totals.values();
  EXPECT_NEAR(actual[0], expected[0], 1e-14 * std::abs(expected[0]) * static_cast<double>(c.rows));
  EXPECT_EQ(actual[1], expected[1]);
  EXPECT_EQ(actual[2], expected[2]);
}

LONGSTRAND_DEVICE_TEST(CrossEntropy, TotalsAreSumsOverTheTargets) {
  for (const Case& each : kCases) {
    SCOPED_TRACE(each.reason);
    check_totals(each);
  }
  check_totals({5000, 16, 1, 1, false, "more rows than one block has"});
}

LONGSTRAND_DEVICE_TEST(CrossEntropy, TheFirstOfEqualLogitsIsThePrediction) {
  Operands op({2, 16, 0, 1, false, ""});
  op.logits.fill([v = 0]() mutable { return ++v % 4 == 0 ? 2.0 : 1.0; });  // columns 3, 7, 11 and 15
  op.target.assign({3, 7});
  Guarded<double, 1> totals({3});
  totals.assign({0, 0, 0});
  cross_entropy_forward(op.input(), op.loss, op.context);
  cross_entropy_totals(op.input(), op.loss, totals, op.context);
  EXPECT_EQ(totals.values()[2], 1);
}

/// As with tokens: a GPU's targets are not looked at beforehand.
LONGSTRAND_CUDA_TEST(CrossEntropy, ATargetThatIsNoClassIsNaN) {
  Operands op({3, 6, 0, 1, false, ""});
  op.target.assign({-2, 5, 6});
  Guarded<float, 2> d_logits({3, 6});
  cross_entropy_backward<float>(op.input(), 1.0F, op.loss, d_logits, op.context);
  const Doubles loss = op.loss.values();
  const Doubles gradient = d_logits.values();
  for (std::size_t m = 0; m < 3; ++m) {
    EXPECT_EQ(std::isnan(loss[m]), m != 1);
    for (std::size_t v = 0; v < 6; ++v) EXPECT_EQ(std::isnan(gradient[m * 6 + v]), m != 1);
  }
}

TEST(CrossEntropy, RefusesATargetThatIsNoClass) {
  for (const double target : {-2.0, 6.0}) {
    Operands op({3, 6, 0, 1, false, ""});
    op.target.fill([&] { return target; });
    EXPECT_THROW(cross_entropy_forward(op.input(), op.loss, op.context), std::logic_error);
  }
}

}  // namespace
}  // namespace longstrand
