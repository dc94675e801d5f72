#include "kernels/transfer.hpp"

#include <algorithm>
#include <cstring>

#include "kernels/cuda_runtime.hpp"
#include "kernels/elementwise_cuda.hpp"

namespace longstrand::detail {

void copy_runs(const void* from, Device from_device, void* to, Device to_device, const Runs& runs,
               Context& context) {
  if constexpr (kCudaBuilt) {
    const bool from_gpu = from_device.kind == DeviceKind::cuda, to_gpu = to_device.kind == DeviceKind::cuda;
    const bool one_gpu = from_device == context.device && to_device == context.device;
    if (from_gpu && to_gpu) return cuda::copy_on_device(from, to, runs, one_gpu, context);
    if (from_gpu) return cuda::copy_to_host(from, to, runs, context);
    if (to_gpu) return cuda::copy_from_host(from, to, runs, context);
  }
  for (std::int64_t row = 0; row < runs.rows; ++row) {
    std::memcpy(static_cast<std::byte*>(to) + row * runs.to_stride,
                static_cast<const std::byte*>(from) + row * runs.from_stride, runs.row_bytes);
  }
}

template <class T>
void fill_runs(T* to, std::int64_t rows, std::int64_t row_size, std::int64_t row_stride, T value,
               Context& context) {
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) {
      cuda::fill_runs(to, rows, row_size, row_stride, value, context);
      return;
    }
  }
  for (std::int64_t row = 0; row < rows; ++row) std::fill_n(to + row * row_stride, row_size, value);
}

template void fill_runs(float*, std::int64_t, std::int64_t, std::int64_t, float, Context&);
template void fill_runs(double*, std::int64_t, std::int64_t, std::int64_t, double, Context&);
template void fill_runs(std::int32_t*, std::int64_t, std::int64_t, std::int64_t, std::int32_t, Context&);
template void fill_runs(std::int64_t*, std::int64_t, std::int64_t, std::int64_t, std::int64_t, Context&);

}  // namespace longstrand::detail
