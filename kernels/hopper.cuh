// What compute capability 9.0 has beyond its predecessors: barriers in shared memory that count bytes, copies
// of tiles from global to shared memory, and matrix products of whole warpgroups (four warps, the first of
// them a multiple of four). All of it is for the files *_hopper.cu, which are compiled for sm_90a alone and
// run where Session::compute_capability is 90.
//
// Tiles in shared memory are blocks of 64 columns: rows of 64 bfloat16 (128 bytes), whose pieces of 16 bytes
// are permuted as the copies and the products expect it (swizzled_offset_bytes). Each begins at a multiple of
// 1024 bytes. There are blocks of 32 columns as well, at multiples of 512 bytes.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda_session.cuh"

namespace longstrand::cuda::hopper {

inline constexpr int kBlockColumns = 64;
inline constexpr int kBlockRow_bytes = 128;
inline constexpr int kWarpgroup = 128;  // threads

// -- host side

/// x [B, T, D] for copies of [rows, columns] tiles, 64 or 32 columns. What a tile has beyond T or D is read
/// as zero, and not written. Rows must begin at multiples of 16 bytes.
inline CUtensorMap tile_map(const View<const bfloat16, 3>& x, int rows, int columns = kBlockColumns) {
  using Encode = decltype(&cuTensorMapEncodeTiled);
  static const Encode encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
#if CUDART_VERSION >= 12050
    const cudaError_t status = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                                cudaEnableDefault, &found);
#else
    const cudaError_t status =
        cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found);
#endif
    check(status, "look up cuTensorMapEncodeTiled");
    if (found != cudaDriverEntryPointSuccess) throw std::runtime_error("the driver knows no tensor maps");
    return reinterpret_cast<Encode>(function);
  }();
  const auto unsigned_of = [](std::int64_t extent) { return static_cast<cuuint64_t>(extent); };
  const cuuint64_t extents[] = {unsigned_of(x.shape[2]), unsigned_of(x.shape[1]), unsigned_of(x.shape[0])};
  const cuuint64_t strides_bytes[] = {unsigned_of(x.stride[1]) * sizeof(bfloat16),
                                      unsigned_of(x.stride[0]) * sizeof(bfloat16)};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(columns), static_cast<cuuint32_t>(rows), 1},
                   steps[] = {1, 1, 1};
  CUtensorMap map;
  const CUresult status =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<bfloat16*>(x.data), extents, strides_bytes,
             box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             columns == kBlockColumns ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) throw std::runtime_error("a tensor map was refused");
  return map;
}

// -- device side

/// Of the same place in the shared memory of block `rank` of the cluster.
__device__ inline unsigned address_in_block(const void* pointer, unsigned rank) {
  unsigned address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(pointer)), "r"(rank));
  return address;
}

/// Where in a block of a tile the piece of 16 bytes lies that is the `piece`-th of row `row`.
template <int kColumns = kBlockColumns>
__device__ inline int swizzled_offset_bytes(int row, int piece) {
  if constexpr (kColumns == kBlockColumns) {
    return row * kBlockRow_bytes + ((piece ^ (row % 8)) * 16);
  } else {
    static_assert(kColumns == kBlockColumns / 2);
    return row * (kBlockRow_bytes / 2) + ((piece ^ (row / 2 % 4)) * 16);
  }
}

/// Phases of a barrier alternate between parity 0 and 1; each ends with the last of its arrivals and bytes.
class Barrier {
 public:
  /// By one thread, before fence_barriers and a barrier of the block.
  __device__ void init(unsigned arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(this)), "r"(arrivals) : "memory");
  }
  __device__ void arrive() {
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(shared_address(this)) : "memory");
  }
  /// At the barrier in the same place of block `rank` of the cluster. What the thread has written is not
  /// promised to be seen there.
  __device__ void arrive_at(unsigned rank) {
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(address_in_block(this, rank))
                 : "memory");
  }
  /// Arrives, and has the phase wait for so many bytes of copies as well.
  __device__ void arrive_expecting(unsigned size_bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(this)),
                 "r"(size_bytes)
                 : "memory");
  }
  /// Returns when the phase of this parity has ended. One that has never begun counts as ended for parity 1.
  __device__ void wait(unsigned parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
        "@!done bra again;\n"
        "}\n" ::"r"(shared_address(this)),
        "r"(parity)
        : "memory");
  }

 private:
  std::uint64_t word_;
};

/// Makes barriers that were initialised known to the copies.
__device__ inline void fence_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

/// Has products and copies see what the thread has written to shared memory; before a barrier.
__device__ inline void fence_shared_writes() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/// Starts the copy of a tile of `map`, by one thread; `arrived` counts its bytes, zeros included.
__device__ inline void copy_tile(const CUtensorMap& map, void* to, Barrier& arrived, int column, int row,
                                 int lane) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, "
      "%5}], "
      "[%2];" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(&arrived)), "r"(column), "r"(row), "r"(lane)
      : "memory");
}

/// The same for all blocks of the cluster that `ranks` has the bits of, to the same place in each, where the
/// same barrier counts.
__device__ inline void copy_tile_to(std::uint16_t ranks, const CUtensorMap& map, void* to, Barrier& arrived,
                                    int column, int row, int lane) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(&arrived)), "r"(column), "r"(row), "r"(lane), "h"(ranks)
      : "memory");
}

/// Starts to write a tile of `map`, by one thread, after fence_shared_writes.
__device__ inline void write_tile(const CUtensorMap& map, const void* from, int column, int row, int lane) {
  asm volatile(
      "cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];\n"
      "cp.async.bulk.commit_group;" ::"l"(&map),
      "r"(shared_address(from)), "r"(column), "r"(row), "r"(lane)
      : "memory");
}
/// Returns when the tiles that the thread writes have left shared memory.
__device__ inline void wait_for_written_tiles() {
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

/// Writes to the same place in block `rank` of the cluster, where the same barrier counts the bytes.
__device__ inline void send(float value, float* to, Barrier& arrived, unsigned rank) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(
                   address_in_block(to, rank)),
               "r"(__float_as_uint(value)), "r"(address_in_block(&arrived, rank))
               : "memory");
}

/// Of all threads of the cluster.
__device__ inline void sync_cluster() {
  asm volatile(
      "barrier.cluster.arrive.release.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;\n" ::
          : "memory");
}

// Barriers of some warps of the block, by number 1 to 15; 0 is __syncthreads. `threads` counts those that
// arrive and those that wait.

__device__ inline void sync_threads(int barrier, int threads) {
  asm volatile("barrier.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ inline void arrive_threads(int barrier, int threads) {
  asm volatile("barrier.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// Registers of a thread, changed by all warps of a warpgroup; multiples of 8.

template <int kRegisters>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

/// Describes rows of a block to the products; they begin at a multiple of 8 rows. `+ kStepOfOperand` is the
/// operand 16 columns further on.
using Operand = std::uint64_t;
inline constexpr Operand kStepOfOperand = 16 * sizeof(bfloat16) / 16;
template <int kColumns = kBlockColumns>
__device__ inline Operand operand(const void* rows) {
  static_assert(kColumns == kBlockColumns || kColumns == kBlockColumns / 2);
  constexpr std::uint64_t kEightRows = 8 * kColumns * sizeof(bfloat16) / 16;
  constexpr std::uint64_t kSwizzled = kColumns == kBlockColumns ? 1 : 2;  // rows of 128 bytes, of 64
  return (shared_address(rows) & 0x3FFFF) >> 4 | std::uint64_t{1} << 16 | kEightRows << 32 | kSwizzled << 62;
}

/// Before the first product of several, and wherever threads have touched the sums in between.
__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
/// Closes a group of products.
__device__ inline void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Returns when all groups but the last kPending are done. `sums` may be read when none is pending.
template <int kPending, int kSums>
__device__ inline void wait_for_products(float (&sums)[kSums]) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
  if constexpr (kPending == 0) {
    // The compiler knows the products' results as soon as they are started.
#pragma unroll
    for (int i = 0; i < kSums; ++i) asm volatile("" : "+f"(sums[i])::"memory");
  }
}

#define LONGSTRAND_SUMS_8(i)                                                                           \
  "+f"(sums[(i)]), "+f"(sums[(i) + 1]), "+f"(sums[(i) + 2]), "+f"(sums[(i) + 3]), "+f"(sums[(i) + 4]), \
      "+f"(sums[(i) + 5]), "+f"(sums[(i) + 6]), "+f"(sums[(i) + 7])
#define LONGSTRAND_SUMS_32(i) \
  LONGSTRAND_SUMS_8(i), LONGSTRAND_SUMS_8((i) + 8), LONGSTRAND_SUMS_8((i) + 16), LONGSTRAND_SUMS_8((i) + 24)

/// Starts sums [64, kSums * 2] = a [64, 16] b^T, or += where `add`, with b [kSums * 2, 16]. Warp w of the
/// warpgroup has rows 16 w to 16 w + 15, its thread l of them rows l / 4 and l / 4 + 8; in sums[4 i] to
/// sums[4 i + 3] columns 8 i + 2 (l % 4) and the one after, first those of the upper row.
__device__ inline void multiply(float (&sums)[24], Operand a, Operand b, bool add) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %26, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n48k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, "
      "%11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23}, %24, %25, add, 1, 1, 0, 0;\n}\n"
      : LONGSTRAND_SUMS_8(0), LONGSTRAND_SUMS_8(8), LONGSTRAND_SUMS_8(16)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
__device__ inline void multiply(float (&sums)[64], Operand a, Operand b, bool add) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, "
      "%11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, "
      "%31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, "
      "%51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, %64, %65, add, 1, 1, 0, 0;\n}\n"
      : LONGSTRAND_SUMS_32(0), LONGSTRAND_SUMS_32(32)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
__device__ inline void multiply(float (&sums)[128], Operand a, Operand b, bool add) {
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, "
      "%11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, "
      "%31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, "
      "%51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, "
      "%71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, "
      "%91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, "
      "%109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, "
      "%126, %127}, %128, %129, add, 1, 1, 0, 0;\n}\n"
      : LONGSTRAND_SUMS_32(0), LONGSTRAND_SUMS_32(32), LONGSTRAND_SUMS_32(64), LONGSTRAND_SUMS_32(96)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}

#undef LONGSTRAND_SUMS_32
#undef LONGSTRAND_SUMS_8

}  // namespace longstrand::cuda::hopper
