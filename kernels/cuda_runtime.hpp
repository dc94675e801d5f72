// What the rest of kernels/ asks of the CUDA runtime, without its headers. All of it is built only where
// CUDA is; callers stand behind `if constexpr (kCudaBuilt)`.
#pragma once

#include <cstddef>
#include <memory>

#include "kernels/view.hpp"

namespace longstrand {

struct Context;
struct CudaProbe;

namespace detail {
struct Runs;
}

namespace cuda {

/// As probe_cuda() and synchronize() in kernels/device.hpp.
CudaProbe probe(int index);
void synchronize(Device device);

/// Zero-filled. Throws DeviceOutOfMemory, or std::runtime_error for any other fault of the device.
std::byte* allocate(std::size_t size_bytes, Device device);
void deallocate(std::byte* pointer) noexcept;
/// Waits for the device before and after: memory of a Buffer is zeroed between uses, not within one.
void zero(std::byte* pointer, std::size_t size_bytes, Device device);

void copy_runs(const void* from, void* to, const detail::Runs& runs, bool on_device, Context& context);
template <class T>
void fill_runs(T* to, std::int64_t rows, std::int64_t row_size, std::int64_t row_stride, T value,
               Context& context);

/// A stream on a device and the library handles that work on it.
class Session;
void destroy(Session* session) noexcept;
struct SessionDelete {
  void operator()(Session* session) const noexcept {
    if constexpr (kCudaBuilt) destroy(session);
  }
};
using SessionPtr = std::unique_ptr<Session, SessionDelete>;
SessionPtr make_session(Device device);
void synchronize(Session& session);

}  // namespace cuda
}  // namespace longstrand
