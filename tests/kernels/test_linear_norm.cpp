#include <gtest/gtest.h>

#include <cmath>

#include "kernels/linear.hpp"
#include "tests/support/each_target.hpp"
#include "tests/support/guarded.hpp"
#include "tests/support/random.hpp"
#include "tests/support/reference_linear.hpp"
#include "tests/support/reference_rms_norm.hpp"
#include "tests/support/tolerances.hpp"

namespace longstrand {
namespace {

using reference::Doubles;
using reference::LinearShape;

constexpr float kEpsilon = 1e-5F;

struct Case {
  LinearShape shape;
  std::int64_t gap;  // between rows: operands are columns of wider arrays
  double scale;      // of the residual
  const char* reason;
  bool fused = false;  // on a GPU that has the kernel for all of it, which adds the product unrounded
};

const std::vector<Case> kCases = {
    {{1, 1, 1}, 0, 1, "the smallest"},
    {{1, 512, 256}, 0, 1, "a decoding step's"},
    {{4, 256, 128}, 0, 1, "of a few lanes"},
    {{64, 512, 256}, 0, 1, "a chunk of the larger small model"},
    {{65, 256, 128}, 8, 1, "a chunk of the smaller one and a bit, rows apart"},
    {{300, 33, 65}, 3, 1, "no extent a multiple of a vector"},
    {{17, 7, 5}, 11, 1, "extents below a vector, odd gaps"},
    {{130, 256, 768}, 0, 1, "a wide model"},
    {{130, 512, 256}, 0, 1e3, "a residual that has grown"},
    {{130, 512, 256}, 0, 1e-4, "a small one"},
};

/// T: what the product may be rounded to before it is added.
template <class T>
void expect_residual(const Doubles& actual, const Doubles& before, const Doubles& product) {
  double largest = 0;
  for (const double value : product) largest = std::max(largest, std::abs(value));
  const double room = (std::is_same_v<T, float> ? tolerance::kForward : tolerance::kForwardBFloat16).relative;
  ASSERT_EQ(actual.size(), before.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double error = std::abs(actual[i] - (before[i] + product[i]));
    ASSERT_FALSE(!(error <= room * largest + tolerance::kForward.relative * std::abs(before[i])))
        << "residual[" << i << "] is " << actual[i] << ", expected " << before[i] + product[i];
  }
}

template <class T>
void check(const Case& c) {
  const LinearShape& shape = c.shape;
  Random random(static_cast<std::uint64_t>(shape.rows * 1'000'003 + shape.in * 1009 + shape.out));
  Context context{device_under_test()};
  Guarded<T, 2> x({shape.rows, shape.in}, c.gap);
  Guarded<float, 2> weight({shape.out, shape.in}), residual({shape.rows, shape.out}, c.gap);
  Guarded<float, 1> norm_weight({shape.out});
  Guarded<T, 2> normed({shape.rows, shape.out}, c.gap);
  const double spread = 1 / std::sqrt(static_cast<double>(shape.in));
  x.fill([&] { return random.normal(); });
  weight.fill([&] { return to_double(from_double<T>(random.normal(0, spread))); });
  residual.fill([&] { return random.normal(0, c.scale); });
  norm_weight.fill([&] { return random.normal(1, 0.2); });
  PackedLinear<T> packed;
  packed.pack(weight, false, context);

  const Doubles before = residual.values();
  const Doubles product = reference::linear(shape, x.values(), weight.values());
  linear_norm_forward<T>(x, packed, {residual, norm_weight, kEpsilon, normed}, context);
  const Doubles total = residual.values();
  if (c.fused && takes_hopper_kernels()) {
    expect_residual<float>(total, before, product);
  } else {
    expect_residual<T>(total, before, product);
  }
  expect_near("normed", normed.values(),
              reference::rms_norm({shape.rows, shape.out, kEpsilon, total, norm_weight.values()}),
              forward_tolerance<T>());
}

LONGSTRAND_DEVICE_TEST(LinearNorm, AgreesWithTheReference) {
  on_each_target([] {
    for (const Case& each : kCases) {
      SCOPED_TRACE(each.reason);
      check<float>(each);
      check<bfloat16>(each);
    }
  });
}

/// Rows enough for a GPU's kernel that does all of it.
const std::vector<Case> kManyRows = {
    {{4224, 64, 256}, 0, 1, "a tile for each pair of an H200's multiprocessors", true},
    {{4225, 512, 256}, 8, 1, "a row more, rows apart", true},
    {{8511, 128, 256}, 0, 1, "two tiles each and a bit", true},
    {{12'750, 64, 256}, 1, 1, "three, rows an odd distance apart"},
    {{4230, 704, 256}, 0, 1, "as many inputs as have room", true},
    {{4230, 96, 256}, 0, 1, "half a block of inputs"},
    {{8448, 64, 128}, 0, 1, "a tile for each multiprocessor", true},
    {{8511, 256, 128}, 8, 1, "one and a bit, rows apart", true},
    {{25'345, 64, 128}, 0, 1, "three and a bit", true},
    {{8500, 64, 192}, 0, 1, "another number of outputs"},
};

LONGSTRAND_CUDA_TEST(LinearNorm, TakesManyRows) {
  for (const Case& each : kManyRows) {
    SCOPED_TRACE(each.reason);
    check<bfloat16>(each);
  }
}

/// No result depends on which of a GPU's blocks was first.
LONGSTRAND_CUDA_TEST(LinearNorm, GivesTheSameAgain) {
  constexpr std::int64_t kRows = 9000, kIn = 512, kOut = 256;
  Context context{device_under_test()};
  Random random(1);
  Guarded<bfloat16, 2> x({kRows, kIn});
  Guarded<float, 2> weight({kOut, kIn});
  Guarded<float, 1> norm_weight({kOut});
  x.fill([&] { return random.normal(); });
  weight.fill([&] { return random.normal(0, 0.05); });
  norm_weight.fill([&] { return random.normal(1, 0.2); });
  PackedLinear<bfloat16> packed;
  packed.pack(weight, false, context);
  Doubles first_total, first_normed;
  for (int time = 0; time < 5; ++time) {
    Guarded<float, 2> residual({kRows, kOut});
    Guarded<bfloat16, 2> normed({kRows, kOut});
    residual.fill([value = 0.0]() mutable { return value = std::fmod(value + 0.37, 1.0); });
    linear_norm_forward<bfloat16>(x, packed, {residual, norm_weight, kEpsilon, normed}, context);
    if (time == 0) first_total = residual.values(), first_normed = normed.values();
    EXPECT_EQ(residual.values(), first_total);
    EXPECT_EQ(normed.values(), first_normed);
  }
}

LONGSTRAND_DEVICE_TEST(LinearNorm, RefusesOperandsThatDoNotFit) {
  Context context{device_under_test()};
  Guarded<float, 2> x({3, 5}), weight({4, 5}), fits({3, 4}), narrow({3, 3});
  Guarded<float, 1> norm_weight({4}), short_weight({3});
  for (Guarded<float, 2>* operand : {&x, &weight, &fits}) operand->fill([] { return 1.0; });
  PackedLinear<float> packed;
  packed.pack(weight, false, context);
  const auto forward = [&](View<const float, 2> input, const ResidualNorm<float>& norm) {
    linear_norm_forward<float>(input, packed, norm, context);
  };
  EXPECT_THROW(forward(fits, {fits, norm_weight, kEpsilon, fits}), std::logic_error);
  EXPECT_THROW(forward(x, {narrow, norm_weight, kEpsilon, fits}), std::logic_error);
  EXPECT_THROW(forward(x, {fits, short_weight, kEpsilon, fits}), std::logic_error);
  EXPECT_THROW(forward(x, {fits, norm_weight, kEpsilon, narrow}), std::logic_error);
}

}  // namespace
}  // namespace longstrand
