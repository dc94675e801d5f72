#include <gtest/gtest.h>

#include <thread>

#include "kernels/linear.hpp"
#include "tests/support/central_difference.hpp"
#include "tests/support/each_target.hpp"
#include "tests/support/guarded.hpp"
#include "tests/support/random.hpp"
#include "tests/support/reference_linear.hpp"
#include "tests/support/tolerances.hpp"

namespace longstrand {
namespace {

using reference::Doubles;
using reference::LinearShape;

struct Case {
  LinearShape shape;
  std::int64_t gap;  // between rows: operands are columns of wider arrays
  const char* reason;
};

const std::vector<Case> kCases = {
    {{1, 1, 1}, 0, "the smallest"},
    {{64, 256, 1024}, 0, "a chunk's input projection"},
    {{64, 512, 48}, 0, "its projection to dt, B and C"},
    {{64, 16, 512}, 32, "its dt projection: columns of the one before"},
    {{150, 64, 32}, 0, "rows cut into 128 + 16 + 6"},
    {{300, 33, 65}, 3, "more rows than a piece has, no extent a multiple of a vector"},
    {{17, 7, 5}, 11, "extents below a vector, odd gaps"},
    {{5, 1, 130}, 1, "a single input"},
    {{131, 97, 1}, 1, "a single output, more rows than two pieces"},
    {{16, 1030, 12}, 0, "a long sum, a vocabulary's outputs"},
    {{1, 256, 1024}, 0, "one row, a decoding step's"},
    {{1, 33, 6}, 5, "one row, no extent a multiple of a vector"},
    {{3, 512, 50}, 0, "a few rows of whole vectors"},
    {{2, 16, 512}, 32, "a few rows, columns of the ones before"},
    {{4, 1030, 12}, 0, "a few rows, a long sum"},
    {{333, 24, 190}, 33, "a wider dt projection, two columns less than whole vectors"},
    {{700, 40, 300}, 1, "many rows an odd distance apart"},
    {{17, 3, 129}, 2, "one output more than whole vectors"},
};

/// The operands of a case with elements of type T, also of the weight's, so that packing does not round.
template <class T>
struct Operands {
  explicit Operands(const LinearShape& shape, std::int64_t gap = 0)
      : x({shape.rows, shape.in}, gap),
        weight({shape.out, shape.in}, gap),
        d_y({shape.rows, shape.out}, gap) {
    Random random(static_cast<std::uint64_t>(shape.rows * 1'000'003 + shape.in * 1009 + shape.out));
    x.fill([&] { return random.normal(); });
    d_y.fill([&] { return random.normal(); });
    weight.fill([&] { return to_double(from_double<T>(random.normal())); });
    packed.pack(weight, true, context);
  }

  Context context{device_under_test()};
  Guarded<T, 2> x;
  Guarded<float, 2> weight;
  Guarded<T, 2> d_y;
  PackedLinear<T> packed;
};

Doubles sum(const Doubles& a, const Doubles& b) {
  Doubles result = a;
  for (std::size_t i = 0; i < a.size(); ++i) result[i] += b.at(i);
  return result;
}

template <class T, class Out>
void check_forward(const LinearShape& shape, std::int64_t gap) {
  Operands<T> op(shape, gap);
  Guarded<Out, 2> y({shape.rows, shape.out}, gap);
  linear_forward<T, Out>(op.x, op.packed, y, op.context);
  expect_near("y", y.values(), reference::linear(shape, op.x.values(), op.weight.values()),
              forward_tolerance<Out>());
}

Doubles softplus_of_sum(const LinearShape& shape, Doubles products, const Doubles& bias) {
  for (std::size_t i = 0; i < products.size(); ++i) {
    products[i] = reference::softplus(products[i] + bias[i % static_cast<std::size_t>(shape.out)]);
  }
  return products;
}

template <class T>
void check_softplus_forward(const LinearShape& shape, std::int64_t gap) {
  Operands<T> op(shape, gap);
  Guarded<float, 1> bias({shape.out});
  bias.fill([random = Random(3)]() mutable { return random.uniform(-4, 1); });
  Guarded<T, 2> y({shape.rows, shape.out}, gap);
  linear_softplus_forward<T>(op.x, op.packed, bias, y, op.context);
  const Doubles products = reference::linear(shape, op.x.values(), op.weight.values());
  expect_near("y", y.values(), softplus_of_sum(shape, products, bias.values()), forward_tolerance<T>());
}

template <class T>
void check_backward_input(const LinearShape& shape, std::int64_t gap, GradientMode mode) {
  Operands<T> op(shape, gap);
  Guarded<T, 2> d_x({shape.rows, shape.in}, gap);
  Doubles expected = reference::linear_d_x(shape, op.d_y.values(), op.weight.values());
  if (mode == GradientMode::accumulate) {
    d_x.fill([value = 0.5]() mutable { return value *= -1.0; });
    expected = sum(expected, d_x.values());
  }
  linear_backward_input<T>(op.d_y, op.packed, d_x, mode, op.context);
  expect_near("d_x", d_x.values(), expected, backward_tolerance<T>());
}

template <class T>
void check_backward_weight(const LinearShape& shape, std::int64_t gap) {
  Operands<T> op(shape, gap);
  Guarded<float, 2> d_weight({shape.out, shape.in}, gap);
  d_weight.fill([value = 0.5]() mutable { return value *= -1.0; });
  const Doubles expected =
      sum(d_weight.values(), reference::linear_d_weight(shape, op.d_y.values(), op.x.values()));
  linear_backward_weight<T>(op.d_y, op.x, d_weight, op.context);
  expect_near("d_weight", d_weight.values(), expected, tolerance::kBackward);
}

template <class T>
void check_all(const LinearShape& shape, std::int64_t gap) {
  check_forward<T, T>(shape, gap);
  check_backward_input<T>(shape, gap, GradientMode::overwrite);
  check_backward_input<T>(shape, gap, GradientMode::accumulate);
  check_backward_weight<T>(shape, gap);
}

LONGSTRAND_DEVICE_TEST(Linear, AgreesWithTheReference) {
  for (const Case& each : kCases) {
    SCOPED_TRACE(each.reason);
    check_all<float>(each.shape, each.gap);
    check_all<bfloat16>(each.shape, each.gap);
    check_forward<bfloat16, float>(each.shape, each.gap);
    check_softplus_forward<float>(each.shape, each.gap);
    check_softplus_forward<bfloat16>(each.shape, each.gap);
  }
}

LONGSTRAND_DEVICE_TEST(Linear, TakesAnyNumberOfRows) {
  for (std::int64_t rows = 1; rows <= 130; ++rows) {
    SCOPED_TRACE(rows);
    check_all<float>({rows, 19, 11}, 5);
    check_all<bfloat16>({rows, 19, 11}, 5);
    check_softplus_forward<float>({rows, 19, 11}, 5);
    check_softplus_forward<bfloat16>({rows, 19, 11}, 5);
  }
}

/// Arguments from -60 to 60 that every type and sum gives exactly. Each element is compared as a share of
/// what it should be, since the largest would hide the others.
template <class T>
void check_softplus_of_any_argument(Tolerance tolerance) {
  const LinearShape shape{119, 1, 9};
  Operands<T> op(shape);
  Guarded<float, 1> bias({shape.out});
  op.x.fill([value = -60.0]() mutable { return value += 1; });
  op.weight.fill([] { return 1.0; });
  bias.fill([value = -1.25]() mutable { return value += 0.25; });
  op.packed.pack(op.weight, false, op.context);
  Guarded<T, 2> y({shape.rows, shape.out});
  linear_softplus_forward<T>(op.x, op.packed, bias, y, op.context);
  const Doubles products = reference::linear(shape, op.x.values(), op.weight.values());
  const Doubles expected = softplus_of_sum(shape, products, bias.values());
  Doubles shares = y.values();
  for (std::size_t i = 0; i < shares.size(); ++i) shares[i] /= expected[i];
  expect_near("share of what y should be", shares, Doubles(shares.size(), 1.0), tolerance);
}

LONGSTRAND_DEVICE_TEST(Linear, SoftplusKeepsItsPrecisionForAnyArgument) {
  on_each_target([] {
    check_softplus_of_any_argument<float>(tolerance::kSoftplusElement);
    check_softplus_of_any_argument<bfloat16>(tolerance::kForwardBFloat16);
  });
}

LONGSTRAND_DEVICE_TEST(Linear, NoRowsDoNothing) {
  Operands<float> op({0, 4, 3});
  Guarded<float, 2> d_weight({3, 4});
  d_weight.fill([] { return 1.0; });
  Guarded<float, 1> bias({3});
  linear_forward<float, float>(op.x, op.packed, op.d_y, op.context);
  linear_softplus_forward<float>(op.x, op.packed, bias, op.d_y, op.context);
  linear_backward_weight<float>(op.d_y, op.x, d_weight, op.context);
  expect_near("d_weight", d_weight.values(), Doubles(12, 1.0), tolerance::kExact);
}

TEST(Linear, ReferenceBackwardIsTheSlopeOfItsForward) {
  const LinearShape shape{3, 4, 5};
  Random random(1);
  Doubles x(12), weight(20), d_y(15);
  for (Doubles* operand : {&x, &weight, &d_y}) {
    for (double& element : *operand) element = random.normal();
  }
  const auto loss = [&] { return dot(reference::linear(shape, x, weight), d_y); };
  expect_near("d_x", reference::linear_d_x(shape, d_y, weight), central_difference(x, loss),
              tolerance::kDifferences);
  expect_near("d_weight", reference::linear_d_weight(shape, d_y, x), central_difference(weight, loss),
              tolerance::kDifferences);
}

LONGSTRAND_DEVICE_TEST(Linear, PackingAgainReplacesTheWeight) {
  const LinearShape shape{3, 4, 2};
  Operands<float> op(shape);
  op.weight.fill([] { return 2.0; });
  op.packed.pack(op.weight, true, op.context);
  Guarded<float, 2> y({shape.rows, shape.out});
  linear_forward<float, float>(op.x, op.packed, y, op.context);
  expect_near("y", y.values(), reference::linear(shape, op.x.values(), Doubles(8, 2.0)), tolerance::kForward);

  Guarded<float, 2> taller({6, 4});
  taller.fill([] { return -1.0; });
  op.packed.pack(taller, true, op.context);
  EXPECT_EQ(op.packed.in_features(), 4);
  EXPECT_EQ(op.packed.out_features(), 6);
  Guarded<float, 2> wider_y({shape.rows, 6});
  linear_forward<float, float>(op.x, op.packed, wider_y, op.context);
  expect_near("y", wider_y.values(), reference::linear({3, 4, 6}, op.x.values(), Doubles(24, -1.0)),
              tolerance::kForward);
}

/// A product right behind a pack takes the new weight, one right behind a product the same.
LONGSTRAND_DEVICE_TEST(Linear, PackingAndMultiplyingInTurnMixesNothingUp) {
  constexpr std::int64_t kRows = 300, kIn = 48, kOut = 512;
  constexpr int kTurns = 8;
  Random random(21);
  Operands<bfloat16> op({kRows, kIn, kOut});
  Guarded<float, 2> other({kOut, kIn});
  other.fill([&] { return random.normal(); });
  Guarded<float, 1> bias({kOut});
  bias.fill([&] { return random.normal(); });
  const std::array<View<const float, 2>, 2> weights = {op.weight.view(), other.view()};
  const View<const bfloat16, 2> x = op.x;
  const View<const float, 1> bias_view = bias;
  std::vector<std::unique_ptr<Guarded<bfloat16, 2>>> y;
  std::vector<View<bfloat16, 2>> views;
  for (int i = 0; i < 2 * kTurns; ++i) {
    y.push_back(std::make_unique<Guarded<bfloat16, 2>>(std::array<std::int64_t, 2>{kRows, kOut}));
    views.push_back(y.back()->view());
  }
  for (int i = 0; i < kTurns; ++i) {
    op.packed.pack(weights[i % 2], false, op.context);
    linear_softplus_forward<bfloat16>(x, op.packed, bias_view, views[2 * i], op.context);
    linear_softplus_forward<bfloat16>(x, op.packed, bias_view, views[2 * i + 1], op.context);
  }
  op.context.synchronize();
  EXPECT_NE(y[0]->values(), y[2]->values());
  for (int i = 0; i < 2 * kTurns; ++i) EXPECT_EQ(y[i]->values(), y[i / 2 % 2 * 2]->values()) << i;
}

LONGSTRAND_DEVICE_TEST(Linear, RefusesOperandsThatDoNotFit) {
  Operands<float> op({3, 4, 2});
  Guarded<float, 2> narrow({3, 1});
  EXPECT_THROW((linear_forward<float, float>(op.x, op.packed, narrow, op.context)), std::logic_error);
  EXPECT_THROW((linear_forward<float, float>(narrow, op.packed, op.d_y, op.context)), std::logic_error);
  Guarded<float, 1> bias({2}), short_bias({1});
  EXPECT_THROW(linear_softplus_forward<float>(op.x, op.packed, bias, narrow, op.context), std::logic_error);
  EXPECT_THROW(linear_softplus_forward<float>(narrow, op.packed, bias, op.d_y, op.context), std::logic_error);
  EXPECT_THROW(linear_softplus_forward<float>(op.x, op.packed, short_bias, op.d_y, op.context),
               std::logic_error);
  EXPECT_THROW(linear_backward_input<float>(op.d_y, op.packed, narrow, GradientMode::overwrite, op.context),
               std::logic_error);
  EXPECT_THROW(linear_backward_weight<float>(op.d_y, op.x, narrow, op.context), std::logic_error);

  op.packed.pack(op.weight, false, op.context);  // also forgets what was packed for backward before
  Guarded<float, 2> d_x({3, 4});
  EXPECT_THROW(linear_backward_input<float>(op.d_y, op.packed, d_x, GradientMode::overwrite, op.context),
               std::logic_error);
}

/// Everything that the three products of a chunk write.
template <class T>
Doubles all_results(Operands<T>& op, const LinearShape& shape, Context& context) {
  Guarded<T, 2> y({shape.rows, shape.out});
  Guarded<T, 2> d_x({shape.rows, shape.in});
  Guarded<float, 2> d_weight({shape.out, shape.in});
  d_weight.fill([] { return 0.0; });
  linear_forward<T, T>(op.x, op.packed, y, context);
  linear_backward_input<T>(op.d_y, op.packed, d_x, GradientMode::overwrite, context);
  linear_backward_weight<T>(op.d_y, op.x, d_weight, context);
  Doubles all = y.values();
  for (const Doubles& more : {d_x.values(), d_weight.values()})
    all.insert(all.end(), more.begin(), more.end());
  return all;
}

/// Several threads that multiply by one weight get the bits that one thread gets.
template <class T>
void check_threads() {
  const LinearShape shape{77, 40, 24};
  Operands<T> op(shape);
  const Doubles alone = all_results(op, shape, op.context);
  EXPECT_EQ(all_results(op, shape, op.context), alone) << "not the same bits a second time";

  constexpr int kThreads = 4;
  std::vector<Doubles> results(kThreads);
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        Context context{device_under_test()};
        for (int repeat = 0; repeat < 20; ++repeat) results[i] = all_results(op, shape, context);
      });
    }
  }
  for (const Doubles& result : results) EXPECT_EQ(result, alone);
}

LONGSTRAND_DEVICE_TEST(Linear, GivesTheSameBitsOnEveryThread) {
  check_threads<float>();
  check_threads<bfloat16>();
}

LONGSTRAND_DEVICE_TEST(Linear, TakesNoMoreScratchTheSecondTime) {
  const LinearShape shape{150, 64, 96};
  Operands<bfloat16> op(shape);
  all_results(op, shape, op.context);
  const std::size_t needed = op.context.scratch.high_water_bytes();
  all_results(op, shape, op.context);
  EXPECT_EQ(op.context.scratch.high_water_bytes(), needed);
}

}  // namespace
}  // namespace longstrand
