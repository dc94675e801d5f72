#include "kernels/context.hpp"

namespace longstrand {

Context::Context(Device where) : device(where), scratch(where) {
  if constexpr (kCudaBuilt) {
    if (device.kind == DeviceKind::cuda) session = cuda::make_session(device);
  }
}

void Context::synchronize() {
  if constexpr (kCudaBuilt) {
    if (session) cuda::synchronize(*session);
  }
}

}  // namespace longstrand
