#include <gtest/gtest.h>

#include "kernels/transfer.hpp"
#include "tests/support/guarded.hpp"

namespace longstrand {
namespace {

/// An operand on its way to a GPU for tens of microseconds, and a read of its end through another stream,
/// which by itself would not wait that long.
LONGSTRAND_DEVICE_TEST(Guarded, IsThereForOperationsOfAnyContextOnceViewed) {
  constexpr std::int64_t kCount = std::int64_t{1} << 22;
  Context context{device_under_test()};
  Guarded<float, 1> operand({kCount});
  for (const float value : {1.0F, 2.0F, 3.0F}) {
    operand.fill([&] { return value; });
    float last = 0;
    copy(operand.view().slice(kCount - 1, 1), View<float, 1>(&last, {1}), context);
    EXPECT_EQ(last, value);
  }
}

}  // namespace
}  // namespace longstrand
