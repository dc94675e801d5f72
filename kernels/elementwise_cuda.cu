#include <algorithm>

#include "kernels/cuda_session.cuh"
#include "kernels/elementwise_cuda.hpp"

namespace longstrand::cuda {
namespace {

constexpr int kThreads = 256;

/// Enough blocks to fill the GPU; every thread goes on by the whole grid.
unsigned blocks_for(std::int64_t count, const Session& session) {
  const std::int64_t most = std::int64_t{session.multiprocessors} * 16;
  return static_cast<unsigned>(std::clamp<std::int64_t>(ceil_div(count, kThreads), 1, most));
}

__device__ std::int64_t first_index() { return std::int64_t{blockIdx.x} * kThreads + threadIdx.x; }
__device__ std::int64_t index_step() { return std::int64_t{gridDim.x} * kThreads; }

__device__ float as_float(bfloat16 value) { return to_float(value); }
__device__ float as_float(double value) { return static_cast<float>(value); }

template <class From>
__global__ void convert_kernel(const From* from, std::int64_t from_stride, float* to, std::int64_t to_stride,
                               std::int64_t count, std::int64_t columns) {
  for (std::int64_t i = first_index(); i < count; i += index_step()) {
    const std::int64_t row = i / columns, column = i % columns;
    to[row * to_stride + column] = as_float(from[row * from_stride + column]);
  }
}

__global__ void add_kernel(const float* from, float* to, std::int64_t count) {
  for (std::int64_t i = first_index(); i < count; i += index_step()) to[i] += from[i];
}

template <class T>
__global__ void fill_marked_rows_kernel(T* to, std::int64_t stride, const std::uint8_t* marked,
                                        std::int64_t count, std::int64_t columns, T value) {
  for (std::int64_t i = first_index(); i < count; i += index_step()) {
    const std::int64_t row = i / columns;
    if (marked[row] != 0) to[row * stride + i % columns] = value;
  }
}

}  // namespace

template <class From, class To>
void convert(View<const From, 2> from, View<To, 2> to, Context& context) {
  if (from.size() == 0) return;
  Session& session = session_of(context);
  convert_kernel<<<blocks_for(from.size(), session), kThreads, 0, session.stream>>>(
      from.data, from.stride[0], to.data, to.stride[0], from.size(), from.shape[1]);
  check_launch("convert");
}

void add(View<const float, 1> from, View<float, 1> to, Context& context) {
  if (from.size() == 0) return;
  Session& session = session_of(context);
  add_kernel<<<blocks_for(from.size(), session), kThreads, 0, session.stream>>>(from.data, to.data,
                                                                                from.size());
  check_launch("add");
}

template <class T>
void fill_marked_rows(View<T, 2> to, View<const std::uint8_t, 1> marked, T value, Context& context) {
  if (to.size() == 0) return;
  Session& session = session_of(context);
  fill_marked_rows_kernel<<<blocks_for(to.size(), session), kThreads, 0, session.stream>>>(
      to.data, to.stride[0], marked.data, to.size(), to.shape[1], value);
  check_launch("fill marked rows");
}

template void convert(View<const bfloat16, 2>, View<float, 2>, Context&);
template void convert(View<const double, 2>, View<float, 2>, Context&);
template void fill_marked_rows(View<float, 2>, View<const std::uint8_t, 1>, float, Context&);
template void fill_marked_rows(View<double, 2>, View<const std::uint8_t, 1>, double, Context&);

}  // namespace longstrand::cuda
