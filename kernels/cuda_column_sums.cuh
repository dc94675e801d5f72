// Sums over the threads of a warp of many values at once, by way of shared memory.
#pragma once

#include <cuda_runtime.h>

namespace longstrand::cuda {

constexpr int kColumnSums = 32;  // values of a thread

/// Adds up every column of a warp's 32 rows of kColumnSums values; a thread ends with one column's sum, that
/// of index column_of(). Quads of a row are permuted so that rows are written, and columns read, without bank
/// conflicts.
class ColumnSums {
 public:
  __device__ explicit ColumnSums(float4 (&rows)[32][kColumnSums / 4])
      : rows_(rows), thread_(static_cast<int>(threadIdx.x) % 32) {}

  __device__ void put(int quad, float4 values) const { rows_[thread_][quad ^ (thread_ % kQuads)] = values; }

  __device__ float sum() const {
    __syncwarp();
    // The addresses are cheap, but there are many of them: not to be kept in registers between calls.
    int quad = thread_ % kQuads;
    asm volatile("" : "+r"(quad));
    const float4(*const rows)[kQuads] = rows_ + thread_ / kQuads * kRowsOfThread;
    float4 value[kRowsOfThread];
#pragma unroll
    for (int i = 0; i < kRowsOfThread; ++i) value[i] = rows[i][quad ^ i];
    __syncwarp();  // all loads are under way before the first is waited for
    float4 total = value[0];
#pragma unroll
    for (int i = 1; i < kRowsOfThread; ++i) {
      total.x += value[i].x, total.y += value[i].y, total.z += value[i].z, total.w += value[i].w;
    }
    const bool upper = thread_ & 16, odd = thread_ & 8;
    const float low =
        (upper ? total.z : total.x) + __shfl_xor_sync(0xffffffffU, upper ? total.x : total.z, 16);
    const float high =
        (upper ? total.w : total.y) + __shfl_xor_sync(0xffffffffU, upper ? total.y : total.w, 16);
    return (odd ? high : low) + __shfl_xor_sync(0xffffffffU, odd ? low : high, 8);
  }
  __device__ int column_of() const { return thread_ % kQuads * 4 + (thread_ & 16) / 8 + (thread_ & 8) / 8; }

 private:
  static constexpr int kQuads = kColumnSums / 4;
  static constexpr int kRowsOfThread = 32 / (32 / kQuads);
  static_assert(kQuads == 8);

  float4 (&rows_)[32][kColumnSums / 4];
  int thread_;
};

}  // namespace longstrand::cuda
