// Whether there is a GPU that this build can use, and if not, why; and waiting for all of a device.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/view.hpp"

namespace longstrand {

enum class CudaState : std::uint8_t {
  absent,  // no such GPU, no driver, or no CUDA in this build
  faulty,  // a GPU is there, but cannot be used: an old driver, another architecture, a fault
  usable
};

struct CudaProbe {
  CudaState state = CudaState::absent;
  int devices = 0;             // that the driver shows
  int compute_capability = 0;  // 90 for 9.0; 0 where unknown
  std::string description;     // one line: the GPU's name, capability and memory, or why it cannot be used
};

/// Runs a kernel on GPU `index`, which takes some memory there for the rest of the process. Throws nothing of
/// its own: whatever is wrong is in the answer.
CudaProbe probe_cuda(int index = 0);

/// Returns when the operations of every Context on the device have been done; throws what went wrong in them.
void synchronize(Device device);

}  // namespace longstrand
