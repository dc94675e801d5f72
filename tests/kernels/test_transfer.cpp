// Copies between views of one device.
#include <gtest/gtest.h>

#include "kernels/transfer.hpp"
#include "tests/support/each_target.hpp"
#include "tests/support/guarded.hpp"
#include "tests/support/random.hpp"

namespace longstrand {
namespace {

struct Case {
  std::array<std::int64_t, 3> shape;
  std::int64_t from_gap, to_gap;  // elements between rows
  const char* reason;
};

const Case kCases[] = {
    {{1, 1, 1}, 0, 0, "one element"},
    {{3, 5, 8}, 0, 0, "packed"},
    {{3, 5, 8}, 4, 8, "whole pieces apart"},
    {{3, 5, 8}, 1, 0, "rows at odd places"},
    {{2, 3, 7}, 0, 0, "odd rows"},
    {{40, 3, 512}, 16, 0, "many blocks"},
    {{3, 1024, 512}, 0, 4, "more than a little"},
};

template <class T>
void expect_copied(const Case& c) {
  Context context(device_under_test());
  Guarded<T, 3> from(c.shape, c.from_gap), to(c.shape, c.to_gap);
  Random random(5);
  from.fill([&] { return random.normal(); });
  copy(from.view(), to.view(), context);
  context.synchronize();
  EXPECT_EQ(to.values(), from.values());
}

LONGSTRAND_DEVICE_TEST(Transfer, CopiesViewsHoweverTheirRowsLie) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.reason);
    expect_copied<float>(c);
    expect_copied<bfloat16>(c);
  }
}

}  // namespace
}  // namespace longstrand
