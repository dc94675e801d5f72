#include "kernels/device.hpp"

#include "kernels/cuda_runtime.hpp"

namespace longstrand {

CudaProbe probe_cuda(int index) {
  if constexpr (kCudaBuilt) return cuda::probe(index);
  return {.description = "this build has no CUDA"};
}

void synchronize(Device device) {
  if constexpr (kCudaBuilt) {
    if (device.kind == DeviceKind::cuda) cuda::synchronize(device);
  }
}

}  // namespace longstrand
