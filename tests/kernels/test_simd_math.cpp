// The elementary functions of kernels/simd_math-inl.hpp against the standard library in double.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/view.hpp"
#include "tests/support/each_target.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/kernels/test_simd_math.cpp"
#include "hwy/foreach_target.h"
//
#include "kernels/simd_math-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace longstrand::HWY_NAMESPACE {

template <class In, class Out, class Function>
void apply(const std::vector<In>& in, std::vector<Out>& out, Function function) {
  const auto size = static_cast<std::int64_t>(in.size());
  for (std::int64_t i = 0; i < size; i += kLanes) {
    store(function(load(in.data() + i, size - i)), out.data() + i, size - i);
  }
}

using Floats = std::vector<float>;
void apply_exp2(const Floats& in, Floats& out) {
  apply(in, out, [](FloatVec x) HWY_ATTR { return exp2(x); });
}
void apply_exp(const Floats& in, Floats& out) {
  apply(in, out, [](FloatVec x) HWY_ATTR { return exp(x); });
}
void apply_sigmoid(const Floats& in, Floats& out) {
  apply(in, out, [](FloatVec x) HWY_ATTR { return sigmoid(x); });
}
void apply_silu(const Floats& in, Floats& out) {
  apply(in, out, [](FloatVec x) HWY_ATTR { return silu(x); });
}
void apply_silu_slope(const Floats& in, Floats& out) {
  apply(in, out, [](FloatVec x) HWY_ATTR { return silu_slope(x, sigmoid(x)); });
}
void apply_softplus(const Floats& in, Floats& out) {
  apply(in, out, [](FloatVec x) HWY_ATTR { return softplus(x); });
}
void apply_softplus_slope(const Floats& in, Floats& out) {
  apply(in, out, [](FloatVec y) HWY_ATTR { return softplus_slope(y); });
}
void narrow(const Floats& in, std::vector<bfloat16>& out) {
  apply(in, out, [](FloatVec x) HWY_ATTR { return x; });
}
void widen(const std::vector<bfloat16>& in, Floats& out) {
  apply(in, out, [](FloatVec x) HWY_ATTR { return x; });
}

}  // namespace longstrand::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstrand {
namespace {

using Floats = std::vector<float>;

HWY_EXPORT(apply_exp2);
HWY_EXPORT(apply_exp);
HWY_EXPORT(apply_sigmoid);
HWY_EXPORT(apply_silu);
HWY_EXPORT(apply_silu_slope);
HWY_EXPORT(apply_softplus);
HWY_EXPORT(apply_softplus_slope);
HWY_EXPORT(narrow);
HWY_EXPORT(widen);

// 2^-24 is half a unit in the last place; a polynomial of float adds a few of those to its own 1e-7.
constexpr double kRelative = 3e-7;
// e^x raises 2 to x log2(e): of that product the rounding, at most 6e-8, and log2(e) itself, 1.4e-8.
constexpr double kRelativePerX = 8e-8;

/// `count` points from low to high; not a multiple of any vector's length, so that tails are met.
Floats points(float low, float high, int count = 40003) {
  Floats x(count);
  for (int i = 0; i < count; ++i)
    x[i] = low + (high - low) * static_cast<float>(i) / static_cast<float>(count - 1);
  return x;
}

/// Fails where an error exceeds kRelative of the result (plus per_x |x| of it) and `absolute`.
template <class Apply, class Exact>
void expect_close(const Floats& x, Apply apply, Exact exact, double per_x = 0, double absolute = 0) {
  Floats y(x.size(), std::numeric_limits<float>::quiet_NaN());
  apply(x, y);
  double worst = 0;
  float where = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double expected = exact(static_cast<double>(x[i]));
    const double allowed = (kRelative + per_x * std::abs(x[i])) * std::abs(expected) + absolute;
    const double share = std::abs(y[i] - expected) / allowed;
    if (!(share <= worst)) worst = share, where = x[i];
    ASSERT_FALSE(std::isnan(y[i])) << "at " << x[i];
  }
  EXPECT_LE(worst, 1) << "of the allowed error, at " << where;
}

double exact_sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double exact_softplus(double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }

TEST(SimdMath, Exp2) {
  on_each_target([] {
    const auto run = [](const Floats& x, Floats& y) { HWY_DYNAMIC_DISPATCH(apply_exp2)(x, y); };
    expect_close(points(-125.9F, 126.0F), run, [](double x) { return std::exp2(x); });
    expect_close(points(-1e-3F, 1e-3F), run, [](double x) { return std::exp2(x); });
    Floats y(3);
    run({0.0F, -1e30F, -std::numeric_limits<float>::infinity()}, y);
    EXPECT_EQ(y, (Floats{1, 0, 0}));
  });
}

TEST(SimdMath, Exp2OfSlowDecaysIsUnbiased) {
  on_each_target([] {
    Floats y(100001);
    HWY_DYNAMIC_DISPATCH(apply_exp2)(points(-2e-4F, -1e-4F, 100001), y);
    const Floats x = points(-2e-4F, -1e-4F, 100001);
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum += std::log2(static_cast<double>(y[i])) - x[i];
    EXPECT_LT(std::abs(sum / static_cast<double>(x.size())), 1e-9);
  });
}

TEST(SimdMath, Exp) {
  on_each_target([] {
    const auto run = [](const Floats& x, Floats& y) { HWY_DYNAMIC_DISPATCH(apply_exp)(x, y); };
    expect_close(
        points(-87.2F, 87.2F), run, [](double x) { return std::exp(x); }, kRelativePerX);
    Floats y(2);
    run({0.0F, -std::numeric_limits<float>::infinity()}, y);
    EXPECT_EQ(y, (Floats{1, 0}));
  });
}

TEST(SimdMath, Sigmoid) {
  on_each_target([] {
    const auto run = [](const Floats& x, Floats& y) { HWY_DYNAMIC_DISPATCH(apply_sigmoid)(x, y); };
    expect_close(points(-80, 80), run, exact_sigmoid, kRelativePerX);
  });
}

TEST(SimdMath, Silu) {
  on_each_target([] {
    const auto run = [](const Floats& x, Floats& y) { HWY_DYNAMIC_DISPATCH(apply_silu)(x, y); };
    expect_close(
        points(-80, 80), run, [](double x) { return x * exact_sigmoid(x); }, kRelativePerX);
    Floats y(2);
    run({-1e4F, 1e4F}, y);
    EXPECT_NEAR(y[0], 0, 1e-30);
    EXPECT_EQ(y[1], 1e4F);
  });
}

TEST(SimdMath, SiluSlope) {
  on_each_target([] {
    const auto run = [](const Floats& x, Floats& y) { HWY_DYNAMIC_DISPATCH(apply_silu_slope)(x, y); };
    const auto exact = [](double x) { return exact_sigmoid(x) * (1 + x * (1 - exact_sigmoid(x))); };
    // It passes through zero near -1.28, where only an absolute error can be asked for.
    expect_close(points(-80, 80), run, exact, kRelativePerX, 5e-7);
  });
}

TEST(SimdMath, Softplus) {
  on_each_target([] {
    const auto run = [](const Floats& x, Floats& y) { HWY_DYNAMIC_DISPATCH(apply_softplus)(x, y); };
    expect_close(points(-86, 30), run, exact_softplus, kRelativePerX);
    Floats y(3);
    run({20.5F, 1e30F, -1e30F}, y);
    EXPECT_EQ(y, (Floats{20.5F, 1e30F, 0}));
  });
}

TEST(SimdMath, SlopeOfSoftplus) {
  on_each_target([] {
    const auto run = [](const Floats& y, Floats& slope) {
      HWY_DYNAMIC_DISPATCH(apply_softplus_slope)(y, slope);
    };
    const auto exact = [](double y) { return -std::expm1(-y); };
    for (const float most : {100.0F, 1.0F, 1e-3F, 1e-6F, 1e-30F}) expect_close(points(0, most), run, exact);
    Floats slope(4);
    run({0.0F, 100.0F, 1e30F, std::numeric_limits<float>::infinity()}, slope);
    EXPECT_EQ(slope, (Floats{0, 1, 1, 1}));
  });
}

TEST(SimdMath, BFloat16RoundsToNearestEven) {
  on_each_target([] {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float inf = std::numeric_limits<float>::infinity();
    // 1 + 2^-8 lies halfway between two values, with the even one below; 1 + 3 * 2^-8 likewise, above.
    Floats x = points(-3, 3, 5001);
    x.insert(x.end(), {0.0F, -0.0F, 1.00390625F, 1.01171875F, 1.00390637F, 3.4e38F, 1e-40F, inf, -inf, nan});
    std::vector<bfloat16> narrowed(x.size());
    HWY_DYNAMIC_DISPATCH(narrow)(x, narrowed);
    for (std::size_t i = 0; i + 1 < x.size(); ++i) ASSERT_EQ(narrowed[i].bits, bfloat16(x[i]).bits) << x[i];
    Floats widened(x.size());
    HWY_DYNAMIC_DISPATCH(widen)(narrowed, widened);
    for (std::size_t i = 0; i + 1 < x.size(); ++i) ASSERT_EQ(widened[i], static_cast<float>(narrowed[i]));
    EXPECT_TRUE(std::isnan(widened.back()));
  });
}

}  // namespace
}  // namespace longstrand
#endif  // HWY_ONCE
