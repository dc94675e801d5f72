#include "kernels/cuda_reduce.cuh"

namespace longstrand::cuda {
namespace {

constexpr int kColumns = 32;  // of a block
constexpr int kSlices = 32;   // of the rows, each added up by one warp

template <class T>
__global__ void __launch_bounds__(kColumns* kSlices)
    add_row_sums_kernel(const T* parts, std::int64_t rows, std::int64_t columns, T* total, std::int64_t width,
                        std::int64_t total_stride) {
  __shared__ T of_slices[kSlices][kColumns];
  const std::int64_t column = std::int64_t{blockIdx.x} * kColumns + threadIdx.x;
  T sum{};
  if (column < columns) {
#pragma unroll 8
    for (std::int64_t row = threadIdx.y; row < rows; row += kSlices) sum += parts[row * columns + column];
  }
  of_slices[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= columns) return;
  for (int slice = 1; slice < kSlices; ++slice) sum += of_slices[slice][threadIdx.x];
  total[column / width * total_stride + column % width] += sum;
}

template <class T>
void launch(View<const T, 2> parts, View<T, 2> total, Context& context) {
  const auto [rows, columns] = parts.shape;
  const auto blocks = static_cast<unsigned>(ceil_div(columns, kColumns));
  add_row_sums_kernel<<<blocks, dim3(kColumns, kSlices), 0, stream_of(context)>>>(
      parts.data, rows, columns, total.data, total.shape[1], total.stride[0]);
  check_launch("add up partial sums");
}

}  // namespace

void add_row_sums(View<const float, 2> parts, View<float, 2> total, Context& context) {
  launch(parts, total, context);
}
void add_row_sums(View<const double, 2> parts, View<double, 2> total, Context& context) {
  launch(parts, total, context);
}

}  // namespace longstrand::cuda
