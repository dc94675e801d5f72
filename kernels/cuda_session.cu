#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels/check.hpp"
#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_session.cuh"
#include "kernels/transfer.hpp"

namespace longstrand::cuda {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // an error that is not sticky is forgotten
  if (status == cudaErrorMemoryAllocation) {
    std::size_t free_bytes = 0, total_bytes = 0;
    cudaMemGetInfo(&free_bytes, &total_bytes);
    throw DeviceOutOfMemory(concat("the GPU is out of memory: ", what, ", ", free_bytes >> 20, " of ",
                                   total_bytes >> 20, " MiB are free; try a smaller --chunk or batch"));
  }
  throw std::runtime_error(concat("CUDA: ", what, ": ", cudaGetErrorString(status)));
}

void check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw std::runtime_error(concat("cuBLAS: ", what, ": ", cublasLtGetStatusString(status)));
}

std::byte* allocate(std::size_t size_bytes, Device device) {
  check(cudaSetDevice(device.index), "select the device");
  void* pointer = nullptr;
  check(cudaMalloc(&pointer, size_bytes), concat(size_bytes >> 20, " MiB are needed").c_str());
  return static_cast<std::byte*>(pointer);
}

void deallocate(std::byte* pointer) noexcept { cudaFree(pointer); }

MemoryInfo memory_info(Device device) {
  check(cudaSetDevice(device.index), "select the device");
  MemoryInfo info;
  check(cudaMemGetInfo(&info.free_bytes, &info.total_bytes), "read the device's memory");
  return info;
}

void zero(std::byte* pointer, std::size_t size_bytes, Device device) {
  check(cudaSetDevice(device.index), "select the device");
  check(cudaDeviceSynchronize(), "wait for the device");
  check(cudaMemset(pointer, 0, size_bytes), "zero memory");
  check(cudaDeviceSynchronize(), "zero memory");
}

PinnedMemory allocate_pinned(std::size_t size_bytes) noexcept {
  void* pointer = nullptr;
  if (cudaHostAlloc(&pointer, size_bytes, cudaHostAllocDefault) != cudaSuccess) {
    cudaGetLastError();  // not an error: callers do without
    return nullptr;
  }
  return PinnedMemory(static_cast<std::byte*>(pointer));
}

void deallocate_pinned(std::byte* pointer) noexcept {
  cudaDeviceSynchronize();
  cudaFreeHost(pointer);
}

namespace {

void copy_runs(const void* from, void* to, const detail::Runs& runs, cudaStream_t stream) {
  constexpr std::int64_t kMostStride_bytes = std::numeric_limits<std::int32_t>::max();
  if (runs.rows == 1) {
    check(cudaMemcpyAsync(to, from, runs.row_bytes, cudaMemcpyDefault, stream), "copy");
  } else if (std::max(runs.from_stride, runs.to_stride) > kMostStride_bytes) {
    for (std::int64_t row = 0; row < runs.rows; ++row) {
      check(cudaMemcpyAsync(static_cast<std::byte*>(to) + row * runs.to_stride,
                            static_cast<const std::byte*>(from) + row * runs.from_stride, runs.row_bytes,
                            cudaMemcpyDefault, stream),
            "copy a row");
    }
  } else {
    check(cudaMemcpy2DAsync(to, runs.to_stride, from, runs.from_stride, runs.row_bytes, runs.rows,
                            cudaMemcpyDefault, stream),
          "copy rows");
  }
}

/// Runs that fit a segment of the ring together.
void copy_staged(const std::byte* from, std::byte* to, const detail::Runs& runs, Session& session) {
  std::byte* staged =
      session.staging.take(static_cast<std::size_t>(runs.rows * runs.row_bytes), session.stream);
  if (staged == nullptr) {
    copy_runs(from, to, runs, session.stream);
    check(cudaStreamSynchronize(session.stream), "copy");
    return;
  }
  for (std::int64_t row = 0; row < runs.rows; ++row) {
    std::memcpy(staged + row * runs.row_bytes, from + row * runs.from_stride, runs.row_bytes);
  }
  copy_runs(staged, to, {runs.rows, runs.row_bytes, runs.row_bytes, runs.to_stride}, session.stream);
}

using CopyPiece = uint4;
constexpr int kCopyThreads = 256;

/// Strides, and what a run has, in pieces.
__global__ void copy_kernel(const CopyPiece* from, std::int64_t from_stride, CopyPiece* to,
                            std::int64_t to_stride, std::int64_t of_run, std::int64_t count) {
  wait_for_turn();
  const std::int64_t i = std::int64_t{blockIdx.x} * kCopyThreads + threadIdx.x;
  if (i < count) to[i / of_run * to_stride + i % of_run] = from[i / of_run * from_stride + i % of_run];
}

}  // namespace

/// Little is copied by a kernel, which starts sooner than what the runtime has.
void copy_on_device(const void* from, void* to, const detail::Runs& runs, bool one_gpu, Context& context) {
  constexpr std::int64_t kLittle_bytes = std::int64_t{4} << 20, kPiece = sizeof(CopyPiece);
  Session& session = session_of(context);
  const auto whole = [](auto value) { return static_cast<std::int64_t>(value) % kPiece == 0; };
  if (!one_gpu || runs.rows * runs.row_bytes > kLittle_bytes || !whole(runs.row_bytes) ||
      !whole(runs.from_stride) || !whole(runs.to_stride) || !whole(reinterpret_cast<std::uintptr_t>(from)) ||
      !whole(reinterpret_cast<std::uintptr_t>(to))) {
    return copy_runs(from, to, runs, session.stream);
  }
  const std::int64_t of_run = runs.row_bytes / kPiece, count = runs.rows * of_run;
  launch_early(copy_kernel, static_cast<unsigned>(ceil_div(count, kCopyThreads)), kCopyThreads, 0, session,
               "copy", static_cast<const CopyPiece*>(from), runs.from_stride / kPiece,
               static_cast<CopyPiece*>(to), runs.to_stride / kPiece, of_run, count);
}

void copy_from_host(const void* from, void* to, const detail::Runs& runs, Context& context) {
  constexpr auto kSegment_bytes = static_cast<std::int64_t>(StagingRing::kSegment_bytes);
  Session& session = session_of(context);
  const auto* source = static_cast<const std::byte*>(from);
  auto* target = static_cast<std::byte*>(to);
  if (runs.row_bytes <= kSegment_bytes) {
    const std::int64_t rows_at_once = kSegment_bytes / runs.row_bytes;
    for (std::int64_t row = 0; row < runs.rows; row += rows_at_once) {
      const std::int64_t rows = std::min(rows_at_once, runs.rows - row);
      copy_staged(source + row * runs.from_stride, target + row * runs.to_stride,
                  {rows, runs.row_bytes, runs.from_stride, runs.to_stride}, session);
    }
    return;
  }
  for (std::int64_t row = 0; row < runs.rows; ++row) {
    for (std::int64_t begin = 0; begin < runs.row_bytes; begin += kSegment_bytes) {
      const std::int64_t size = std::min(kSegment_bytes, runs.row_bytes - begin);
      copy_staged(source + row * runs.from_stride + begin, target + row * runs.to_stride + begin,
                  {1, size, size, size}, session);
    }
  }
}

void copy_to_host(const void* from, void* to, const detail::Runs& runs, Context& context) {
  const cudaStream_t stream = stream_of(context);
  copy_runs(from, to, runs, stream);
  check(cudaStreamSynchronize(stream), "copy to the host");
}

void start_copy_to_pinned(const void* from, void* to, std::size_t size_bytes, Context& context) {
  check(cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyDeviceToHost, stream_of(context)),
        "copy to the host");
}

namespace {

/// Tells for what the kernels that run here were compiled: elsewhere wait_for_turn does nothing.
__global__ void probe_kernel() {}

bool kernels_wait_for_their_turn() {
  cudaFuncAttributes attributes;
  check(cudaFuncGetAttributes(&attributes, probe_kernel), "read a kernel's attributes");
  int driver = 0;  // from 12.3 on, graphs can hold such launches
  check(cudaDriverGetVersion(&driver), "read the driver's version");
  return CUDART_VERSION >= 12030 && driver >= 12030 && attributes.ptxVersion >= 90;
}

}  // namespace

Session::Session(Device where) : device(where) {
  try {
    open();
  } catch (...) {
    close();
    throw;
  }
}

void Session::open() {
  check(cudaSetDevice(device.index), "select the device");
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "create a stream");
  check(cublasLtCreate(&blas), "create a handle");
  constexpr std::size_t kWorkspace_bytes = std::size_t{32} << 20;  // as much as Hopper's fastest products ask
  check(cudaMalloc(&blas_workspace, kWorkspace_bytes), "workspace of the matrix products");
  blas_workspace_bytes = kWorkspace_bytes;
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device.index), "read the device's properties");
  multiprocessors = properties.multiProcessorCount;
  compute_capability = properties.major * 10 + properties.minor;
  launches_early = kernels_wait_for_their_turn();
}

void Session::close() noexcept {
  if (stream) cudaStreamSynchronize(stream);  // copies out of the staging ring, say
  cudaFree(blas_workspace);
  if (blas) cublasLtDestroy(blas);
  if (stream) cudaStreamDestroy(stream);
}

unsigned* Session::counters(std::int64_t count) {
  constexpr std::int64_t kFewest = 4096;
  if (count > counters_.view().size()) counters_ = Array<unsigned, 1>({std::max(2 * count, kFewest)}, device);
  return counters_.view().data;
}

Session& session_of(Context& context) {
  check(cudaSetDevice(context.device.index), "select the device");
  return *context.session;
}

SessionPtr make_session(Device device) { return SessionPtr(new Session(device)); }
void destroy(Session* session) noexcept { delete session; }
class Event {
 public:
  Event() { check(cudaEventCreateWithFlags(&handle, cudaEventDisableTiming), "create an event"); }
  ~Event() { cudaEventDestroy(handle); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  cudaEvent_t handle = nullptr;
};

EventPtr make_event(Device device) {
  check(cudaSetDevice(device.index), "select the device");
  return EventPtr(new Event);
}
void destroy(Event* event) noexcept { delete event; }
void record(Event& event, Context& context) {
  check(cudaEventRecord(event.handle, stream_of(context)), "record an event");
}
void wait(Event& event) { check(cudaEventSynchronize(event.handle), "wait for the device"); }

void synchronize(Session& session) { check(cudaStreamSynchronize(session.stream), "wait for the device"); }

}  // namespace longstrand::cuda
