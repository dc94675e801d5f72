#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "kernels/elementwise.hpp"
#include "tests/support/guarded.hpp"
#include "tests/support/random.hpp"
#include "tests/support/tolerances.hpp"

namespace longstrand {
namespace {

using Doubles = std::vector<double>;

struct Case {
  std::int64_t rows, columns, gap;
  const char* reason;
};

const Case kCases[] = {
    {1, 1, 0, "the smallest"},
    {70, 12, 4, "packets of columns; rows apart"},
    {3, 33, 0, "odd"},
    {5, 16, 3, "rows that start between packets"},
};

/// Operands, and what each element should become: rounded once.
template <class T>
struct Operands {
  explicit Operands(const Case& c)
      : a({c.rows, c.columns}, c.gap), b({c.rows, c.columns}, c.gap), d({c.rows, c.columns}, c.gap) {
    Random random(31);
    for (Guarded<T, 2>* x : {&a, &b, &d}) x->fill([&] { return random.normal(); });
  }
  static Doubles combined(const Doubles& x, const Doubles& y, const std::function<float(float, float)>& f) {
    Doubles result(x.size());
    std::transform(x.begin(), x.end(), y.begin(), result.begin(), [&](double one, double other) {
      return to_double(T(f(static_cast<float>(one), static_cast<float>(other))));
    });
    return result;
  }
  Guarded<T, 2> a, b, d;
  Context context{device_under_test()};
};

template <class T>
void expect_combinations(const Case& c) {
  Operands<T> sum(c), product(c);
  const Doubles a = sum.a.values(), b = sum.b.values();
  add<T, T>(sum.b, sum.a, sum.context);
  expect_near("sum", sum.a.values(), sum.combined(a, b, std::plus<>()), tolerance::kExact);
  multiply<T>(product.b, product.a, product.context);
  expect_near("product", product.a.values(), sum.combined(a, b, std::multiplies<>()), tolerance::kExact);
}

template <class T>
void expect_slopes_of_a_product(const Case& c) {
  Operands<T> x(c);
  Guarded<T, 2> d_a({c.rows, c.columns}, c.gap);
  const Doubles a = x.a.values(), b = x.b.values(), d = x.d.values();
  multiply_backward<T>(x.a, x.b, x.d, d_a, x.d, x.context);  // d_b takes the place of d_product
  expect_near("d_a", d_a.values(), x.combined(d, b, std::multiplies<>()), tolerance::kExact);
  expect_near("d_b", x.d.values(), x.combined(d, a, std::multiplies<>()), tolerance::kExact);
}

/// T and a stream of floats: there and back.
template <class T>
void expect_float_and_back(const Case& c) {
  Operands<T> x(c);
  Operands<float> y(c);
  const Doubles of_x = x.b.values(), of_y = y.a.values();
  add<T, float>(x.b, y.a, y.context);
  expect_near("sum", y.a.values(), y.combined(of_y, of_x, std::plus<>()), tolerance::kExact);
  const Doubles sum = y.a.values();
  convert<float, T>(View<const float, 2>(y.a), x.d, x.context);
  expect_near("converted", x.d.values(), x.combined(sum, sum, [](float a, float) { return a; }),
              tolerance::kExact);
}

LONGSTRAND_DEVICE_TEST(Elementwise, SumsAndProductsAreRoundedOnce) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.reason);
    expect_combinations<float>(c);
    expect_combinations<bfloat16>(c);
  }
}

LONGSTRAND_DEVICE_TEST(Elementwise, EitherTypeGoesIntoFloatAndOutAgain) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.reason);
    expect_float_and_back<float>(c);
    expect_float_and_back<bfloat16>(c);
  }
}

/// More views than a launch takes.
LONGSTRAND_DEVICE_TEST(Elementwise, FillsTheMarkedRowsOfAllViews) {
  constexpr std::int64_t kRows = 3, kColumns = 5;
  Context context(device_under_test());
  Guarded<std::uint8_t, 1> marked({kRows});
  marked.assign({1, 0, 1});
  std::vector<std::unique_ptr<Guarded<float, 2>>> rows;
  std::vector<View<float, 2>> views;
  for (int i = 0; i < 40; ++i) {
    rows.push_back(std::make_unique<Guarded<float, 2>>(std::array{kRows, kColumns}, i % 3));
    rows.back()->fill([&] { return i; });
    views.push_back(rows.back()->view());
  }
  fill_marked_rows<float>(views, marked, -1.0F, context);
  context.synchronize();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::vector<double> expected(kRows * kColumns, -1.0);
    std::fill_n(expected.begin() + kColumns, kColumns, static_cast<double>(i));
    EXPECT_EQ(rows[i]->values(), expected) << i;
  }
}

LONGSTRAND_DEVICE_TEST(Elementwise, AProductGivesEachFactorTheOther) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.reason);
    expect_slopes_of_a_product<float>(c);
    expect_slopes_of_a_product<bfloat16>(c);
  }
}

}  // namespace
}  // namespace longstrand
