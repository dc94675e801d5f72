#include <stdexcept>

#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_reduce.cuh"

namespace longstrand::cuda {
namespace {

constexpr int kColumns = 32;  // of a block
constexpr int kSlices = 32;   // of the rows, each added up by one warp

/// A RowSum for device code.
template <class T>
struct Sum {
  const T* parts;
  std::int64_t rows, columns;
  T* total;
  std::int64_t width, stride;
  int blocks;
};

template <class T>
struct Sums {
  Sum<T> sum[kMostRowSums];
};

template <class T>
__global__ void __launch_bounds__(kColumns* kSlices)
    add_row_sums_kernel(const __grid_constant__ Sums<T> sums) {
  __shared__ T of_slices[kSlices][kColumns];
  wait_for_turn();
  int i = 0, block = static_cast<int>(blockIdx.x);
  while (block >= sums.sum[i].blocks) block -= sums.sum[i++].blocks;
  const Sum<T>& of = sums.sum[i];
  const std::int64_t column = std::int64_t{block} * kColumns + threadIdx.x;
  T sum{};
  if (column < of.columns) {
#pragma unroll 8
    for (std::int64_t row = threadIdx.y; row < of.rows; row += kSlices) {
      sum += of.parts[row * of.columns + column];
    }
  }
  of_slices[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= of.columns) return;
  for (int slice = 1; slice < kSlices; ++slice) sum += of_slices[slice][threadIdx.x];
  of.total[column / of.width * of.stride + column % of.width] += sum;
}

template <class T>
void launch(std::initializer_list<RowSum<T>> sums, Context& context) {
  if (sums.size() > kMostRowSums) throw std::logic_error("too many sums for a launch");
  Sums<T> all{};
  int count = 0, blocks = 0;
  for (const RowSum<T>& sum : sums) {
    const auto [rows, columns] = sum.parts.shape;
    const auto of_sum = static_cast<int>(ceil_div(columns, kColumns));
    all.sum[count++] = {sum.parts.data,      rows,  columns, sum.total.data, sum.total.shape[1],
                        sum.total.stride[0], of_sum};
    blocks += of_sum;
  }
  launch_early(add_row_sums_kernel<T>, static_cast<unsigned>(blocks), dim3(kColumns, kSlices), 0,
               session_of(context), "add up partial sums", all);
}

}  // namespace

void add_row_sums(std::initializer_list<RowSum<float>> sums, Context& context) { launch(sums, context); }
void add_row_sums(std::initializer_list<RowSum<double>> sums, Context& context) { launch(sums, context); }

}  // namespace longstrand::cuda
