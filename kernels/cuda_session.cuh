// For the .cu files: the stream behind a Context, error checks, launch arithmetic, and device-side helpers.
#pragma once

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "kernels/context.hpp"
#include "kernels/cuda_matmul.cuh"
#include "kernels/cuda_runtime.hpp"
#include "kernels/cuda_staging.cuh"
#include "kernels/view.hpp"

namespace longstrand::cuda {

/// Throws std::runtime_error (DeviceOutOfMemory where memory ran out) that names `what`.
void check(cudaError_t status, const char* what);
void check(cublasStatus_t status, const char* what);

/// Empty, or why cuBLASLt cannot be loaded.
std::string blas_fault();

class Session {
 public:
  explicit Session(Device device);
  ~Session() { close(); }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  Device device;
  cudaStream_t stream = nullptr;
  cublasLtHandle_t blas = nullptr;
  void* blas_workspace = nullptr;
  std::size_t blas_workspace_bytes = 0;
  MatmulAlgorithms matmul_algorithms;
  int multiprocessors = 0;
  int compute_capability = 0;     // 90 for 9.0
  bool launches_early = false;    // see kernels/cuda_launch.cuh
  bool weight_under_way = false;  // packed since the last such launch: the next one has to wait for it
  StagingRing staging;

  /// At least so many zeros, for the kernels of one operation, which leave zeros behind.
  unsigned* counters(std::int64_t count);

 private:
  void open();
  void close() noexcept;

  Array<unsigned, 1> counters_;
};

/// The session of a Context on a CUDA device, made current on the calling thread.
Session& session_of(Context& context);
inline cudaStream_t stream_of(Context& context) { return session_of(context).stream; }
/// Before a launch with so much dynamic shared memory, which may be more than kernels get unasked.
template <class Kernel>
void allow_shared_memory(Kernel kernel, std::size_t size_bytes, const char* what) {
  check(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(size_bytes)),
      what);
}
/// After every launch.
inline void check_launch(const char* what) { check(cudaGetLastError(), what); }

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// -- device side

/// As instructions on shared memory take it.
__device__ inline unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}
__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(bfloat16 value) { return __uint_as_float(std::uint32_t{value.bits} << 16); }
template <class T>
__device__ inline T from_float(float value);
template <>
__device__ inline float from_float<float>(float value) {
  return value;
}
template <>
__device__ inline bfloat16 from_float<bfloat16>(float value) {
  bfloat16 result;
  result.bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
  return result;
}

}  // namespace longstrand::cuda
