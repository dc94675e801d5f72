// The two operations that join strands, against their definition.
#include <gtest/gtest.h>

#include <numeric>
#include <utility>

#include "kernels/strands.hpp"
#include "tests/support/guarded.hpp"
#include "tests/support/random.hpp"
#include "tests/support/tolerances.hpp"

namespace longstrand {
namespace {

using Doubles = std::vector<double>;

struct Case {
  std::int64_t chunks, tokens, columns;  // C, T, D
  std::vector<std::int64_t> length;      // of each record
  std::int64_t gap;                      // elements between rows
  const char* reason;
};

const Case kCases[] = {
    {1, 1, 1, {1}, 0, "the smallest"},
    {1, 7, 3, {7, 0, 4}, 0, "one chunk; a record without tokens, one that ends before the chunk"},
    {3, 5, 16, {15, 11, 5, 4}, 0, "the last chunk full, begun and not reached"},
    {2, 50, 33, {99}, 3, "more rows than a block of a GPU takes; rows apart; odd"},
    {4, 33, 12, {132, 70}, 4, "packets of columns; rows apart"},
};

/// Rows of whole records, and which column each faces. Padding has numbers too: they stay.
struct Strands {
  explicit Strands(const Case& c, std::uint64_t stream = 21)
      : records(static_cast<std::int64_t>(c.length.size())),
        tokens(c.tokens),
        columns(c.columns),
        lengths(c.length),
        rows({c.chunks, 2 * records, tokens, columns}, c.gap),
        length({2 * records}),
        facing({columns}) {
    Random random(stream);
    rows.fill([&] { return random.normal(); });
    length.fill([&, lane = 0]() mutable { return static_cast<double>(lengths[lane++ / 2]); });
    facing.fill([&, d = 0]() mutable { return static_cast<double>(facing_of(d++)); });
  }
  /// Neighbours face one another, but for the first column and one that is left over.
  std::int64_t facing_of(std::int64_t d) const {
    const std::int64_t neighbour = d % 2 == 1 ? d + 1 : d - 1;
    return d == 0 || neighbour == columns ? d : neighbour;
  }
  /// Of a row in the values of `rows`.
  std::int64_t offset(std::int64_t lane, std::int64_t t) const {
    return ((t / tokens * 2 * records + lane) * tokens + t % tokens) * columns;
  }
  /// visit(value, value that it faces) for all columns of all rows of the records.
  template <class Facing, class Visit>
  void for_each_pair(Doubles& values, const Facing& facing_column, const Visit& visit) const {
    for (std::int64_t record = 0; record < records; ++record) {
      for (std::int64_t t = 0; t < lengths[record]; ++t) {
        for (std::int64_t d = 0; d < columns; ++d) {
          visit(values[offset(2 * record, t) + d],
                values[offset(2 * record + 1, lengths[record] - 1 - t) + facing_column(d)]);
        }
      }
    }
  }
  Doubles exchanged() const {
    Doubles values = rows.values();
    for_each_pair(
        values, [&](std::int64_t d) { return columns - 1 - d; },
        [](double& a, double& b) { std::swap(a, b); });
    return values;
  }
  template <class Facing>
  Doubles sums(const Facing& facing_column, double scale = 1) const {
    Doubles values = rows.values();
    for_each_pair(values, facing_column, [&](double& a, double& b) {
      a = b = scale * (static_cast<float>(a) + static_cast<float>(b));
    });
    return values;
  }

  std::int64_t records, tokens, columns;
  std::vector<std::int64_t> lengths;
  Guarded<float, 4> rows;
  Guarded<std::int64_t, 1> length;
  Guarded<std::int32_t, 1> facing;
  Context context{device_under_test()};
};

LONGSTRAND_DEVICE_TEST(Strands, AreExchangedRowByRowAndBack) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.reason);
    Strands strands(c);
    const Doubles before = strands.rows.values(), expected = strands.exchanged();
    exchange_strands(strands.rows, strands.length, strands.context);
    expect_near("rows", strands.rows.values(), expected, tolerance::kExact);
    exchange_strands(strands.rows, strands.length, strands.context);
    expect_near("rows", strands.rows.values(), before, tolerance::kExact);
  }
}

LONGSTRAND_DEVICE_TEST(Strands, AreAddedWhereTheyFaceOneAnother) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.reason);
    Strands strands(c), straight(c);
    const Doubles expected = strands.sums([&](std::int64_t d) { return strands.facing_of(d); });
    add_facing_strands(strands.rows, strands.length, strands.facing, 1.0F, strands.context);
    expect_near("rows", strands.rows.values(), expected, tolerance::kExact);
    const Doubles means = straight.sums([](std::int64_t d) { return d; }, 0.5);
    add_facing_strands(straight.rows, straight.length, {}, 0.5F, straight.context);
    expect_near("means", straight.rows.values(), means, tolerance::kExact);
  }
}

/// <f(x), y> = <x, f(y)> for a linear f: then f is its own backward.
LONGSTRAND_DEVICE_TEST(Strands, BothOperationsAreTheirOwnBackward) {
  const Case c{3, 5, 16, {15, 11}, 0, ""};
  const auto both = [&](const auto& f) {
    Strands x(c, 22), y(c, 23);
    const Doubles of_x = x.rows.values(), of_y = y.rows.values();
    f(x), f(y);
    const Doubles f_x = x.rows.values(), f_y = y.rows.values();
    EXPECT_NEAR(std::inner_product(f_x.begin(), f_x.end(), of_y.begin(), 0.0),
                std::inner_product(of_x.begin(), of_x.end(), f_y.begin(), 0.0), 1e-4);
  };
  both([](Strands& strands) { exchange_strands(strands.rows, strands.length, strands.context); });
  both([](Strands& strands) {
    add_facing_strands(strands.rows, strands.length, strands.facing, 1.0F, strands.context);
  });
}

LONGSTRAND_DEVICE_TEST(Strands, RefuseLanesThatAreNoPairs) {
  Strands strands({1, 4, 8, {4, 4}, 0, ""});
  Guarded<float, 4> rows({1, 3, 4, 8});
  Guarded<std::int64_t, 1> length({3});
  EXPECT_THROW(exchange_strands(rows, length, strands.context), std::logic_error);
  EXPECT_THROW(add_facing_strands(strands.rows, length, {}, 1.0F, strands.context), std::logic_error);
}

}  // namespace
}  // namespace longstrand
