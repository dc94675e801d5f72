// Sums in a fixed order: the same bits in every run.
#pragma once

#include <initializer_list>

#include "kernels/cuda_session.cuh"

namespace longstrand::cuda {

/// total += the sum of the rows of `parts` [R, C], where total [n, w] holds C = n * w elements row by row.
template <class T>
struct RowSum {
  View<const T, 2> parts;
  View<T, 2> total;

  RowSum(View<const T, 2> parts, View<T, 2> total) : parts(parts), total(total) {}
  RowSum(View<T, 2> parts, View<T, 1> total)
      : parts(parts), total(total.data, {1, total.shape[0]}, total.device) {}
};

constexpr int kMostRowSums = 3;

/// The second stage of sums over tokens, whose first leaves a row per worker: at most kMostRowSums at a time.
void add_row_sums(std::initializer_list<RowSum<float>> sums, Context& context);
void add_row_sums(std::initializer_list<RowSum<double>> sums, Context& context);

/// The blocks of a kernel that the device runs at once: the grid of a kernel whose blocks share out the work.
template <class Kernel>
std::int64_t resident_blocks(Kernel* kernel, int threads, const Session& session) {
  int per_multiprocessor = 0;
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_multiprocessor, kernel, threads, 0),
        "count resident blocks");
  return std::int64_t{session.multiprocessors} * per_multiprocessor;
}

// -- device side

/// Replaces each value by its sum over the group of kThreads neighbouring threads. A group of more than a
/// warp must be the whole block, all of whose threads call this.
template <int kThreads, class T, int kCount>
__device__ inline void sum_over_group(T (&values)[kCount]) {
  constexpr int kWarp = 32;
  constexpr int kLanes = kThreads < kWarp ? kThreads : kWarp;
  const unsigned first_lane = threadIdx.x % kWarp / kLanes * kLanes;
  const unsigned mask = (0xffffffffU >> (kWarp - kLanes)) << first_lane;
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
#pragma unroll
    for (T& value : values) value += __shfl_xor_sync(mask, value, offset);
  }
  if constexpr (kThreads > kWarp) {
    constexpr int kWarps = kThreads / kWarp;
    __shared__ T of_warps[kWarps][kCount];
    __syncthreads();  // the sums of the call before have been read
    if (threadIdx.x % kWarp == 0) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) of_warps[threadIdx.x / kWarp][i] = values[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      values[i] = T{};
#pragma unroll
      for (int warp = 0; warp < kWarps; ++warp) values[i] += of_warps[warp][i];
    }
  }
}

}  // namespace longstrand::cuda
