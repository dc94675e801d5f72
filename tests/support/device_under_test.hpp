// One test body, two tests: on the CPU and on a GPU.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <string>
#include <tuple>

#include "kernels/check.hpp"
#include "kernels/context.hpp"
#include "kernels/device.hpp"

namespace longstrand {

/// Where the operands of a test's body lie and its operations run.
struct Placement {
  Device device{};
  /// Elements before the first of an operand. Odd: no view is aligned to a vector.
  std::int64_t guard = 37;
};

namespace detail {
inline Placement placement;
}

inline const Placement& placement_under_test() { return detail::placement; }
inline Device device_under_test() { return detail::placement.device; }
/// Whether the GPU has the kernels of *_hopper.cu, and the test's operands are aligned as these want them.
inline bool takes_hopper_kernels() {
  return probe_cuda().compute_capability == 90 && placement_under_test().guard % 16 == 0;
}

namespace detail {

class ScopedPlacement {
 public:
  explicit ScopedPlacement(const Placement& here) { placement = here; }
  ~ScopedPlacement() { placement = {}; }
  ScopedPlacement(const ScopedPlacement&) = delete;
  ScopedPlacement& operator=(const ScopedPlacement&) = delete;
};

inline bool cuda_is_required() {
  const char* value = std::getenv("LONGSTRAND_REQUIRE_CUDA");
  return value != nullptr && *value != '\0' && *value != '0';
}

/// Of the one GPU that is tested on; as long as the process lives. A Context is one thread's at a time: tests
/// that start threads hold the mutex.
inline Context& context_for_transfers() {
  static Context& context = *new Context(device_under_test());
  return context;
}
inline std::mutex& transfers_mutex() {
  static std::mutex mutex;
  return mutex;
}

/// Skips the test, or fails it, where the device cannot be had. Return if it did.
inline void require_device(DeviceKind kind) {
  if (kind == DeviceKind::cpu) {
    if (!kCpuBuilt) GTEST_SKIP() << NoCpuBackend().what();
    return;
  }
  static const CudaProbe gpu = probe_cuda();
  if (gpu.state == CudaState::faulty) FAIL() << gpu.description;
  if (gpu.state == CudaState::usable) return;
  if (cuda_is_required()) FAIL() << gpu.description << ", and LONGSTRAND_REQUIRE_CUDA is set";
  GTEST_SKIP() << gpu.description;
}
inline bool is_over() { return testing::Test::HasFatalFailure() || testing::Test::IsSkipped(); }

inline void run_on_cpu(void (*body)()) {
  require_device(DeviceKind::cpu);
  if (!is_over()) body();
}

/// The body twice: vector accesses want aligned operands, and the others must be right too.
inline void run_on_cuda(void (*body)()) {
  require_device(DeviceKind::cuda);
  for (const std::int64_t guard : {37, 128}) {
    if (is_over()) return;
    SCOPED_TRACE(guard == 37 ? "on CUDA, operands not aligned" : "on CUDA, operands aligned");
    const ScopedPlacement here({{DeviceKind::cuda, 0}, guard});
    body();
  }
}

}  // namespace detail

/// Test SUITECuda.NAME of the body that follows, on a GPU. Without one it is skipped, or fails where
/// LONGSTRAND_REQUIRE_CUDA is 1; on a GPU that is there but at fault it fails always.
#define LONGSTRAND_CUDA_TEST(suite, name)                                               \
  static void suite##_##name##_body();                                                  \
  TEST(suite##Cuda, name) { ::longstrand::detail::run_on_cuda(suite##_##name##_body); } \
  static void suite##_##name##_body()

/// The same and, of the same body, test SUITE.NAME on the CPU.
#define LONGSTRAND_DEVICE_TEST(suite, name)                                      \
  static void suite##_##name##_body();                                           \
  TEST(suite, name) { ::longstrand::detail::run_on_cpu(suite##_##name##_body); } \
  LONGSTRAND_CUDA_TEST(suite, name)

/// The same for tests of cases: an instance for each case and device, of Combine(CASES, kBothDevices).
template <class Case>
class DeviceTestWithParam : public testing::TestWithParam<std::tuple<Case, DeviceKind>> {
 protected:
  const Case& param() const { return std::get<0>(this->GetParam()); }
  void SetUp() override {
    const DeviceKind kind = std::get<1>(this->GetParam());
    detail::require_device(kind);
    detail::placement = {.device = {kind, 0}};
  }
  void TearDown() override { detail::placement = {}; }
};
inline const auto kBothDevices = testing::Values(DeviceKind::cpu, DeviceKind::cuda);

/// Of an instance whose case has a name: NAME on the CPU and NAME_Cuda on a GPU.
inline constexpr auto kDeviceCaseName = [](const auto& instance) {
  const auto& [each, kind] = instance.param;
  return kind == DeviceKind::cpu ? std::string(each.name) : std::string(each.name) + "_Cuda";
};

}  // namespace longstrand
