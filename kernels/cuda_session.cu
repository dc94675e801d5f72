#include "kernels/check.hpp"
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
  zero(static_cast<std::byte*>(pointer), size_bytes, device);
  return static_cast<std::byte*>(pointer);
}

void deallocate(std::byte* pointer) noexcept { cudaFree(pointer); }

void zero(std::byte* pointer, std::size_t size_bytes, Device device) {
  check(cudaSetDevice(device.index), "select the device");
  check(cudaDeviceSynchronize(), "wait for the device");
  check(cudaMemset(pointer, 0, size_bytes), "zero memory");
  check(cudaDeviceSynchronize(), "zero memory");
}

void copy_runs(const void* from, void* to, const detail::Runs& runs, bool on_device, Context& context) {
  const cudaStream_t stream = stream_of(context);
  if (runs.rows == 1) {
    check(cudaMemcpyAsync(to, from, runs.row_bytes, cudaMemcpyDefault, stream), "copy");
  } else {
    check(cudaMemcpy2DAsync(to, runs.to_stride, from, runs.from_stride, runs.row_bytes, runs.rows,
                            cudaMemcpyDefault, stream),
          "copy rows");
  }
  if (!on_device) check(cudaStreamSynchronize(stream), "copy");
}

namespace {

template <class T>
__global__ void fill_kernel(T* to, std::int64_t count, std::int64_t row_size, std::int64_t row_stride,
                            T value) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    to[i / row_size * row_stride + i % row_size] = value;
  }
}

}  // namespace

template <class T>
void fill_runs(T* to, std::int64_t rows, std::int64_t row_size, std::int64_t row_stride, T value,
               Context& context) {
  Session& session = session_of(context);
  constexpr int kThreads = 256;
  const std::int64_t count = rows * row_size;
  const auto blocks = static_cast<unsigned>(
      std::min<std::int64_t>(ceil_div(count, kThreads), std::int64_t{session.multiprocessors} * 8));
  fill_kernel<<<blocks, kThreads, 0, session.stream>>>(to, count, row_size, row_stride, value);
  check_launch("fill");
}

template void fill_runs(float*, std::int64_t, std::int64_t, std::int64_t, float, Context&);
template void fill_runs(double*, std::int64_t, std::int64_t, std::int64_t, double, Context&);
template void fill_runs(std::int64_t*, std::int64_t, std::int64_t, std::int64_t, std::int64_t, Context&);

Session::Session(Device where) : device(where) {
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
}

Session::~Session() {
  cudaFree(blas_workspace);
  if (blas) cublasLtDestroy(blas);
  if (stream) cudaStreamDestroy(stream);
}

Session& session_of(Context& context) {
  check(cudaSetDevice(context.device.index), "select the device");
  return *context.session;
}

SessionPtr make_session(Device device) { return SessionPtr(new Session(device)); }
void destroy(Session* session) noexcept { delete session; }
void synchronize(Session& session) { check(cudaStreamSynchronize(session.stream), "wait for the device"); }

}  // namespace longstrand::cuda
