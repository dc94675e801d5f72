// Products of small matrices of bfloat16 by a warp's tensor cores (mma.m16n8k16 and m16n8k8, in the PTX ISA).
// Thread 4 g + q of the warp has, in pairs of neighbours along the depth k,
//
//   of A [16, k]   rows g and g + 8 at k = 2 q, and where the depth is 16, both at k = 2 q + 8;
//   of B [k, 8]    column g at k = 2 q, and at 2 q + 8;
//   of C [16, 8]   columns 2 q and 2 q + 1 of row g, then of row g + 8, in float.
#pragma once

#include <cstdint>

#include "kernels/cuda_session.cuh"

namespace longstrand::cuda {

/// sum += a b.
__device__ inline void multiply_add(float (&sum)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                    std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// The same with a depth of 8, without b1.
__device__ inline void multiply_add(float (&sum)[4], const std::uint32_t (&a)[2], std::uint32_t b0,
                                    std::uint32_t /*b1*/) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(b0));
}

// Matrices of 8 rows and 8 columns in shared memory, by their rows of 16 bytes.

/// Four matrices of 8 rows and 8 columns, transposed: of matrix i, a thread of the warp gives the row
/// threadIdx % 8 of matrix threadIdx / 8, and gets in pair[i] rows 2 q and 2 q + 1 of column g.
__device__ inline void load_transposed(unsigned row, std::uint32_t (&pair)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(pair[0]), "=r"(pair[1]), "=r"(pair[2]), "=r"(pair[3])
               : "r"(row)
               : "memory");
}

/// Writes four such matrices to where load_transposed reads them.
__device__ inline void store_transposed(unsigned row, const std::uint32_t (&pair)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row),
               "r"(pair[0]), "r"(pair[1]), "r"(pair[2]), "r"(pair[3])
               : "memory");
}

/// Four such matrices as they are: in pair[i] columns 2 q and 2 q + 1 of row g.
__device__ inline void load_rows(unsigned row, std::uint32_t (&pair)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(pair[0]), "=r"(pair[1]), "=r"(pair[2]), "=r"(pair[3])
               : "r"(row)
               : "memory");
}

}  // namespace longstrand::cuda
