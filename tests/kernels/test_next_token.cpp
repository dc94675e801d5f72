#include <gtest/gtest.h>

#include "kernels/cross_entropy.hpp"
#include "kernels/next_token.hpp"
#include "tests/support/guarded.hpp"
#include "tests/support/random.hpp"
#include "tests/support/tolerances.hpp"

namespace longstrand {
namespace {

constexpr TokenRange kBases{7, 10};

struct Case {
  std::int64_t lanes, tokens;
  std::vector<std::int64_t> valid;
  std::vector<double> next;
  std::int64_t gap;
  const char* reason;
};

const std::vector<Case> kCases = {
    {1, 1, {1}, {8}, 0, "the smallest: its target is outside of the chunk"},
    {1, 1, {1}, {-1}, 0, "a record of one token has no target"},
    {4, 5, {5, 4, 1, 0}, {7, 10, -1, 9}, 0, "full, padded, ended, and an empty lane, whose next is of none"},
    {3, 1000, {1000, 999, 500}, {11, 255, 10}, 3, "next tokens that only all_tokens has; gaps between lanes"},
};

void check(const Case& c, TokenRange predicted) {
  Context context{device_under_test()};
  Random random(static_cast<std::uint64_t>(c.tokens));
  Guarded<std::uint8_t, 2> tokens({c.lanes, c.tokens}, c.gap);
  Guarded<std::int32_t, 1> next({c.lanes});
  Guarded<std::int64_t, 1> valid({c.lanes});
  Guarded<std::int32_t, 1> target({c.lanes * c.tokens});
  tokens.fill([&] { return static_cast<double>(random.integer(0, 15)); });
  next.assign(c.next);
  valid.assign({c.valid.begin(), c.valid.end()});

  std::vector<double> expected;
  const std::vector<double> ids = tokens.values();
  for (std::int64_t lane = 0; lane < c.lanes; ++lane) {
    for (std::int64_t t = 0; t < c.tokens; ++t) {
      double following = kNoTarget;
      if (t + 1 < c.valid[lane]) following = ids[lane * c.tokens + t + 1];
      if (t + 1 == c.valid[lane]) following = c.next[lane];
      const bool counts = following >= predicted.first && following <= predicted.last;
      expected.push_back(counts ? following : kNoTarget);
    }
  }
  next_token_targets(tokens, next, valid, predicted, target, context);
  expect_near("target", target.values(), expected, tolerance::kExact);
}

LONGSTRAND_DEVICE_TEST(NextToken, IsTheTargetOfEachToken) {
  for (const Case& each : kCases) {
    SCOPED_TRACE(each.reason);
    check(each, kBases);
    check(each, {});
  }
}

LONGSTRAND_DEVICE_TEST(NextToken, RefusesOperandsThatDoNotFit) {
  Context context{device_under_test()};
  Guarded<std::uint8_t, 2> tokens({2, 3});
  Guarded<std::int32_t, 1> next({2}), target({5});
  Guarded<std::int64_t, 1> valid({2});
  EXPECT_THROW(next_token_targets(tokens, next, valid, kBases, target, context), std::logic_error);
}

}  // namespace
}  // namespace longstrand
