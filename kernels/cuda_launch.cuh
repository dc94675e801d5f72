// Kernels that start while the one before them on the stream still runs ("programmatic dependent launch" in
// the CUDA programming guide): the few microseconds that blocks need to come and go overlap.
#pragma once

#include "kernels/cuda_session.cuh"

namespace longstrand::cuda {

/// Launches a kernel that calls wait_for_turn(), as soon as the blocks of the one before it have all called
/// that and there is room. What a DeviceWeight holds may be read before: the kernel behind
/// DeviceWeight::pack, and any elsewhere than on Hopper and later, is launched as usual.
template <class... Parameters, class... Arguments>
void launch_early(void (*kernel)(Parameters...), cudaLaunchConfig_t config, Session& session,
                  const char* what, Arguments&&... arguments) {
  constexpr unsigned kMostAttributes = 2;
  cudaLaunchAttribute attributes[kMostAttributes];
  for (unsigned i = 0; i < config.numAttrs; ++i) attributes[i] = config.attrs[i];
  if (session.launches_early && !session.weight_under_way) {
    cudaLaunchAttribute& early = attributes[config.numAttrs++];
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
  }
  config.attrs = attributes;
  config.stream = session.stream;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), what);
  session.weight_under_way = false;
}
template <class... Parameters, class... Arguments>
void launch_early(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
                  Session& session, const char* what, Arguments&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid, config.blockDim = block, config.dynamicSmemBytes = shared_bytes;
  launch_early(kernel, config, session, what, arguments...);
}

/// By every thread of such a kernel, before it reads or writes what other kernels do: returns when all that
/// was put on the stream before is done. The next kernel may start then, though not pass this itself.
__device__ inline void wait_for_turn() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

}  // namespace longstrand::cuda
