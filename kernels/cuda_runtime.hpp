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

/// Throws DeviceOutOfMemory, or std::runtime_error for any other fault of the device.
std::byte* allocate(std::size_t size_bytes, Device device);
/// Waits for whatever may still use the memory.
void deallocate(std::byte* pointer) noexcept;
/// Waits for the device before and after: memory of a Buffer is zeroed between uses, not within one.
void zero(std::byte* pointer, std::size_t size_bytes, Device device);
struct MemoryInfo {
  std::size_t free_bytes = 0, total_bytes = 0;
};
MemoryInfo memory_info(Device device);

/// Host memory that a GPU reads and writes by itself, while the host goes on. Given back when nothing on the
/// device can use it any more.
void deallocate_pinned(std::byte* pointer) noexcept;
struct PinnedFree {
  void operator()(std::byte* pointer) const noexcept {
    if constexpr (kCudaBuilt) deallocate_pinned(pointer);
  }
};
using PinnedMemory = std::unique_ptr<std::byte, PinnedFree>;
/// Empty where the system gives none: callers use ordinary memory then, and wait.
PinnedMemory allocate_pinned(std::size_t size_bytes) noexcept;

// Copies, in order with the context's operations. What lies on the host may be used or freed on return.
/// `one_gpu`: that of the context; else of two.
void copy_on_device(const void* from, void* to, const detail::Runs& runs, bool one_gpu, Context& context);
/// Returns before it is done: the host's values go through pinned memory.
void copy_from_host(const void* from, void* to, const detail::Runs& runs, Context& context);
void copy_to_host(const void* from, void* to, const detail::Runs& runs, Context& context);
/// As copy_to_host, but `to` is pinned memory, and there only behind an event recorded after this.
void start_copy_to_pinned(const void* from, void* to, std::size_t size_bytes, Context& context);

/// Owner of a T that only .cu files know, by the destroy(T*) beside its declaration.
struct Destroy {
  template <class T>
  void operator()(T* object) const noexcept {
    if constexpr (kCudaBuilt) destroy(object);
  }
};
template <class T>
using Handle = std::unique_ptr<T, Destroy>;

/// A stream on a device and the library handles that work on it.
class Session;
void destroy(Session* session) noexcept;
using SessionPtr = Handle<Session>;
SessionPtr make_session(Device device);
void synchronize(Session& session);

/// A mark between operations that the host can wait for.
class Event;
void destroy(Event* event) noexcept;
using EventPtr = Handle<Event>;
EventPtr make_event(Device device);
/// Behind all operations so far.
void record(Event& event, Context& context);
void wait(Event& event);

}  // namespace cuda
}  // namespace longstrand
