// Runs a test on every instruction set that the CPU operations are compiled for and this machine has.
#pragma once

#include "tests/support/device_under_test.hpp"

#if LONGSTRAND_CPU_BUILT
#include "kernels/simd_targets.hpp"
//
#include <hwy/targets.h>
#endif

namespace longstrand {

#if LONGSTRAND_CPU_BUILT
/// Calls body() once for each instruction set, the machine's best last; restores the choice afterwards. On a
/// GPU just once.
template <class Body>
void on_each_target(const Body& body) {
  if (device_under_test().kind != DeviceKind::cpu) {
    body();
    return;
  }
  struct Restore {
    ~Restore() {
      hwy::SetSupportedTargetsForTest(0);
      hwy::GetChosenTarget().DeInit();
    }
  } restore;
  hwy::SetSupportedTargetsForTest(0);
  const std::int64_t supported = hwy::SupportedTargets() & HWY_TARGETS;
  for (std::int64_t bit = std::int64_t{1} << 62; bit != 0; bit >>= 1) {
    if ((supported & bit) == 0) continue;
    SCOPED_TRACE(hwy::TargetName(bit));
    hwy::SetSupportedTargetsForTest(bit);
    hwy::GetChosenTarget().Update(bit);
    body();
  }
}
#else
template <class Body>
void on_each_target(const Body& body) {
  body();
}
#endif

}  // namespace longstrand
