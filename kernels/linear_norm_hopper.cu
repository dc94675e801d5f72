// The product, its sum with the residual and the norm in one kernel, so that x, residual and normed pass
// through memory once. A block keeps the weight of 128 outputs in shared memory and walks over tiles of 64
// rows. Where there are 256 outputs, two blocks are a cluster, which walks over the same tiles: each fetches
// half of a tile's rows for both, and they send one another the sums of squares of their halves.
//
// Two warpgroups take every other tile each: while one multiplies, the other one norms. Each has a warp that
// fetches x for it into a ring of its own, of blocks of 64 columns.
#include <algorithm>
#include <limits>

#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_packet.cuh"
#include "kernels/hopper.cuh"
#include "kernels/linear_cuda.hpp"

namespace longstrand::cuda {
namespace {

using hopper::Barrier;

constexpr int kTileRows = 64;
constexpr int kBlockOutputs = 128;
constexpr int kConsumers = 2;  // warpgroups
constexpr int kConsumerThreads = kConsumers * hopper::kWarpgroup;
constexpr int kThreads = kConsumerThreads + hopper::kWarpgroup;  // the last warpgroup fetches
constexpr int kWeightBlock_bytes = kBlockOutputs * hopper::kBlockRow_bytes;
constexpr int kStage_bytes = kTileRows * hopper::kBlockRow_bytes;
constexpr int kFewestStages = 3, kMostStages = 8;  // of a ring
constexpr int kMostShared_bytes = 227 << 10;

struct Operands {
  CUtensorMap x;  // a block's share of a tile's rows
  const bfloat16* weight;
  std::int64_t weight_stride;
  float* residual;
  std::int64_t residual_stride;
  const float* norm_weight;
  bfloat16* normed;
  std::int64_t normed_stride;
  std::int64_t rows, tiles;
  float epsilon;
  int blocks;  // of 64 inputs
  int stages;
};

/// What lies in shared memory before the weight and the rings.
struct Shared {
  Barrier filled[kConsumers][kMostStages], emptied[kConsumers][kMostStages];
  Barrier heard[kConsumers][2];
  float squares[kConsumers][2][kTileRows];  // sums of the other block

  static constexpr int kAligned_bytes = 2048;
};
static_assert(sizeof(Shared) <= Shared::kAligned_bytes);

constexpr int shared_bytes(int blocks, int stages) {
  return Shared::kAligned_bytes + blocks * kWeightBlock_bytes + kConsumers * stages * kStage_bytes;
}

/// Which output of a block is in row `row` of its weight: a thread's sums of two neighbouring groups of eight
/// columns, 2 q and 2 q + 1 of each, are of four neighbours.
__device__ inline int output_of(int row) {
  return row / 16 * 16 + row % 8 / 2 * 4 + row / 8 % 2 * 2 + row % 2;
}

__device__ inline void load_weight(const Operands& op, int first_output, unsigned char* to) {
  constexpr int kWarps = kThreads / 32, kBlockPieces = hopper::kBlockRow_bytes / 16;
#pragma unroll 4
  for (int row = static_cast<int>(threadIdx.x) / 32; row < kBlockOutputs; row += kWarps) {
    const bfloat16* from = op.weight + (first_output + output_of(row)) * op.weight_stride;
#pragma unroll 2
    for (int piece = static_cast<int>(threadIdx.x) % 32; piece < op.blocks * kBlockPieces; piece += 32) {
      unsigned char* block = to + piece / kBlockPieces * kWeightBlock_bytes;
      *reinterpret_cast<uint4*>(block + hopper::swizzled_offset_bytes(row, piece % kBlockPieces)) =
          __ldg(reinterpret_cast<const uint4*>(from) + piece);
    }
  }
  hopper::fence_shared_writes();
}

/// By one thread. Blocks of a cluster empty one another's stages.
__device__ inline void init(Shared& shared, int stages, int parts) {
  for (int consumer = 0; consumer < kConsumers; ++consumer) {
    for (int i = 0; i < stages; ++i) {
      shared.filled[consumer][i].init(1);
      shared.emptied[consumer][i].init(parts * hopper::kWarpgroup / 32);
    }
    for (Barrier& heard : shared.heard[consumer]) heard.init(1);
  }
  hopper::fence_barriers();
}

/// The tiles of a warpgroup.
template <int kParts>
struct Tiles {
  std::int64_t first, step;
  __device__ explicit Tiles(int consumer) {
    const std::int64_t clusters = gridDim.x / kParts;
    first = blockIdx.x / kParts + consumer * clusters;
    step = kConsumers * clusters;
  }
};

/// A place in a ring.
struct Place {
  int stage = 0;
  unsigned parity = 0;
  __device__ void advance(int stages) {
    if (++stage == stages) stage = 0, parity ^= 1;
  }
};

/// By one thread, for one warpgroup, whose ring it is.
template <int kParts>
__device__ void fetch(const Operands& op, Shared& shared, unsigned char* ring, int part, int consumer) {
  constexpr int kRows = kTileRows / kParts;
  const Tiles<kParts> tiles(consumer);
  Place place;
  for (std::int64_t tile = tiles.first; tile < op.tiles; tile += tiles.step) {
    const int row = static_cast<int>(tile) * kTileRows + part * kRows;
    for (int block = 0; block < op.blocks; ++block) {
      shared.emptied[consumer][place.stage].wait(place.parity ^ 1);
      Barrier& filled = shared.filled[consumer][place.stage];
      filled.arrive_expecting(kStage_bytes);
      unsigned char* to = ring + place.stage * kStage_bytes + part * kRows * hopper::kBlockRow_bytes;
      const int column = block * hopper::kBlockColumns;
      if constexpr (kParts == 1) {
        hopper::copy_tile(op.x, to, filled, column, row, 0);
      } else {
        hopper::copy_tile_to((1 << kParts) - 1, op.x, to, filled, column, row, 0);
      }
      place.advance(op.stages);
    }
  }
}

/// A thread of a warpgroup. Of every tile it has kRows rows, 4 apart, and of each of them four neighbouring
/// outputs in every 32, so that a warp reads and writes whole lines of 128 bytes.
template <int kParts>
class TileWalk {
 public:
  __device__ TileWalk(const Operands& op, Shared& shared, const unsigned char* weight,
                      const unsigned char* ring, int part, int consumer)
      : op_(op),
        shared_(shared),
        weight_(hopper::operand(weight)),
        ring_(hopper::operand(ring)),
        consumer_(consumer),
        other_(static_cast<unsigned>(part ^ 1)),
        upper_(threadIdx.x % 32 >= 16),
        row_(static_cast<int>(threadIdx.x % hopper::kWarpgroup / 32 * 16 + threadIdx.x % 16 / 4)),
        output_(part * kBlockOutputs + static_cast<int>(threadIdx.x % 32 / 16 * 16 + threadIdx.x % 4 * 4)) {}

  __device__ void run() {
    float weight[kPieces][kPacket];
#pragma unroll
    for (int p = 0; p < kPieces; ++p) load(op_.norm_weight + output_ + p * 32, weight[p]);
    const Tiles<kParts> tiles(consumer_);
    Place place;
    int turn = 0;
    for (std::int64_t tile = tiles.first; tile < op_.tiles; tile += tiles.step, ++turn) {
      const std::int64_t row = tile * kTileRows + row_;
      Share total;
      load_residual(row, total);  // it arrives during the product
      float sums[kBlockOutputs / 2];
      multiply(place, sums);
      add(sums, total);
      float squares[kRows];
      sum_squares(total, squares);
      if constexpr (kParts > 1) tell(squares, turn);
      store_residual(total, row);
      if constexpr (kParts > 1) hear(squares, turn);
      norm(total, squares, weight, row);
    }
  }

 private:
  static constexpr int kRows = 4, kPieces = kBlockOutputs / 32;
  using Share = float[kRows][kPieces][kPacket];

  __device__ void load_residual(std::int64_t row, Share& total) const {
    const float* from = op_.residual + row * op_.residual_stride + output_;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int p = 0; p < kPieces; ++p) {
#pragma unroll
        for (float& element : total[r][p]) element = 0.0F;
        if (row + r * 4 < op_.rows) load(from + r * 4 * op_.residual_stride + p * 32, total[r][p]);
      }
    }
  }

  __device__ void store_residual(const Share& total, std::int64_t row) const {
    float* to = op_.residual + row * op_.residual_stride + output_;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (row + r * 4 >= op_.rows) break;
#pragma unroll
      for (int p = 0; p < kPieces; ++p) store(total[r][p], to + r * 4 * op_.residual_stride + p * 32);
    }
  }

  /// A stage is given back as soon as the product after it has been started.
  __device__ void multiply(Place& place, float (&sums)[kBlockOutputs / 2]) {
    int before = 0;
    for (int block = 0; block < op_.blocks; ++block) {
      shared_.filled[consumer_][place.stage].wait(place.parity);
      const hopper::Operand a = ring_ + place.stage * (kStage_bytes / 16);
      const hopper::Operand b = weight_ + block * (kWeightBlock_bytes / 16);
      hopper::begin_products();
#pragma unroll
      for (int i = 0; i < hopper::kBlockColumns / 16; ++i) {
        hopper::multiply(sums, a + i * hopper::kStepOfOperand, b + i * hopper::kStepOfOperand,
                         block > 0 || i > 0);
      }
      hopper::commit_products();
      if (block > 0) {
        hopper::wait_for_products<1>(sums);
        release(before);
      }
      before = place.stage;
      place.advance(op_.stages);
    }
    hopper::wait_for_products<0>(sums);
    release(before);
  }

  __device__ void release(int stage) {
    if (threadIdx.x % 32 != 0) return;
    Barrier& emptied = shared_.emptied[consumer_][stage];
    emptied.arrive();
    if constexpr (kParts > 1) emptied.arrive_at(other_);
  }

  /// Of the product, a thread has rows 8 apart and four outputs in every 16. Threads 16 lanes apart, whose
  /// rows are 4 apart, give one another half of these.
  __device__ void add(const float (&sums)[kBlockOutputs / 2], Share& total) const {
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int e = 0; e < kPacket; ++e) {
          const float first = sums[16 * p + 2 * i + e / 2 * 4 + e % 2];
          const float second = sums[16 * p + 8 + 2 * i + e / 2 * 4 + e % 2];
          const float own = upper_ ? second : first;
          const float others = __shfl_xor_sync(~0U, upper_ ? first : second, 16);
          total[2 * i][p][e] += upper_ ? others : own;
          total[2 * i + 1][p][e] += upper_ ? own : others;
        }
      }
    }
  }

  __device__ void sum_squares(const Share& total, float (&squares)[kRows]) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      squares[r] = 0.0F;
#pragma unroll
      for (int p = 0; p < kPieces; ++p) {
#pragma unroll
        for (const float element : total[r][p]) squares[r] = fmaf(element, element, squares[r]);
      }
#pragma unroll
      for (const int lanes : {1, 2, 16}) squares[r] += __shfl_xor_sync(~0U, squares[r], lanes);
    }
  }

  /// The other block its part of the sums. Turns alternate between two places: before the other block is told
  /// something in a place again, it has answered the turn between, and read the place before that.
  __device__ void tell(const float (&squares)[kRows], int turn) {
    Barrier& heard = shared_.heard[consumer_][turn % 2];
    float* to = shared_.squares[consumer_][turn % 2] + row_;
    if (threadIdx.x % hopper::kWarpgroup == 0) heard.arrive_expecting(kTileRows * sizeof(float));
    if (threadIdx.x % 4 != 0 || upper_) return;
#pragma unroll
    for (int r = 0; r < kRows; ++r) hopper::send(squares[r], to + r * 4, heard, other_);
  }

  __device__ void hear(float (&squares)[kRows], int turn) {
    shared_.heard[consumer_][turn % 2].wait(turn / 2 % 2);
    const float* from = shared_.squares[consumer_][turn % 2] + row_;
#pragma unroll
    for (int r = 0; r < kRows; ++r) squares[r] += from[r * 4];
  }

  __device__ void norm(const Share& total, const float (&squares)[kRows],
                       const float (&weight)[kPieces][kPacket], std::int64_t row) const {
    bfloat16* to = op_.normed + row * op_.normed_stride + output_;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (row + r * 4 >= op_.rows) break;
      const float s = rsqrtf(squares[r] / static_cast<float>(kParts * kBlockOutputs) + op_.epsilon);
#pragma unroll
      for (int p = 0; p < kPieces; ++p) {
        float normed[kPacket];
#pragma unroll
        for (int e = 0; e < kPacket; ++e) normed[e] = total[r][p][e] * (s * weight[p][e]);
        store(normed, to + r * 4 * op_.normed_stride + p * 32);
      }
    }
  }

  const Operands& op_;
  Shared& shared_;
  const hopper::Operand weight_, ring_;
  const int consumer_;
  const unsigned other_;
  const bool upper_;
  const int row_, output_;  // the thread's first
};

template <int kParts>
__global__ void __launch_bounds__(kThreads, 1) linear_norm_kernel(const __grid_constant__ Operands op) {
  extern __shared__ __align__(1024) unsigned char memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  unsigned char* const weight = memory + Shared::kAligned_bytes;
  unsigned char* const rings = weight + op.blocks * kWeightBlock_bytes;
  const int part = static_cast<int>(blockIdx.x) % kParts;
  if (threadIdx.x == 0) init(shared, op.stages, kParts);
  load_weight(op, part * kBlockOutputs, weight);
  wait_for_turn();
  __syncthreads();
  if constexpr (kParts > 1) hopper::sync_cluster();
  if (threadIdx.x < kConsumerThreads) {
    hopper::take_registers<240>();
    const int consumer = static_cast<int>(threadIdx.x) / hopper::kWarpgroup;
    TileWalk<kParts>(op, shared, weight, rings + consumer * op.stages * kStage_bytes, part, consumer).run();
  } else {
    hopper::give_registers<24>();
    const int consumer = static_cast<int>(threadIdx.x - kConsumerThreads) / 32;
    if (consumer < kConsumers && threadIdx.x % 32 == 0) {
      fetch<kParts>(op, shared, rings + consumer * op.stages * kStage_bytes, part, consumer);
    }
  }
  if constexpr (kParts > 1) {
    __syncwarp();
    hopper::sync_cluster();  // a block that is told something must still be there
  }
}

/// Returns false where there are fewer tiles than clusters: some would bring in their weight for nothing.
template <int kParts>
bool launch(Operands& op, View<const bfloat16, 2> x, Context& context) {
  Session& session = session_of(context);
  const auto kernel = linear_norm_kernel<kParts>;
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {kParts, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(session.multiprocessors / kParts * kParts));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes(op.blocks, op.stages));
  config.attrs = &cluster;
  config.numAttrs = 1;
  allow_shared_memory(kernel, kMostShared_bytes, "linear norm: shared memory");
  int clusters = 0;  // at a time: not all multiprocessors need have a neighbour
  check(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config), "linear norm: clusters");
  if (clusters == 0 || op.tiles < clusters) return false;
  config.gridDim = dim3(static_cast<unsigned>(clusters * kParts));
  op.x = hopper::tile_map({x.data, {1, x.shape[0], x.shape[1]}, {x.stride[0], x.stride[0], 1}, x.device},
                          kTileRows / kParts);
  launch_early(kernel, config, session, "linear norm", op);
  return true;
}

}  // namespace

bool linear_norm_forward(View<const bfloat16, 2> x, View<const bfloat16, 2> weight,
                         const ResidualNorm<bfloat16>& norm, Context& context) {
  const auto [rows, inputs] = x.shape;
  const int blocks = static_cast<int>(std::min<std::int64_t>(inputs / hopper::kBlockColumns, 1 << 10));
  const int stages =
      std::min(kMostStages, (kMostShared_bytes - shared_bytes(blocks, 0)) / (kConsumers * kStage_bytes));
  const bool fits = session_of(context).compute_capability == 90 && inputs % hopper::kBlockColumns == 0 &&
                    stages >= kFewestStages && rows <= std::numeric_limits<int>::max() - kTileRows &&
                    rows_hold_packets<8>(x) && rows_hold_packets<8>(weight) &&
                    rows_hold_packets(norm.residual) && rows_hold_packets(norm.weight) &&
                    rows_hold_packets(norm.normed);
  if (!fits) return false;
  Operands op{.x = {},
              .weight = weight.data,
              .weight_stride = weight.stride[0],
              .residual = norm.residual.data,
              .residual_stride = norm.residual.stride[0],
              .norm_weight = norm.weight.data,
              .normed = norm.normed.data,
              .normed_stride = norm.normed.stride[0],
              .rows = rows,
              .tiles = ceil_div(rows, kTileRows),
              .epsilon = norm.epsilon,
              .blocks = blocks,
              .stages = stages};
  if (weight.shape[0] == kBlockOutputs) return launch<1>(op, x, context);
  if (weight.shape[0] == 2 * kBlockOutputs) return launch<2>(op, x, context);
  return false;
}

}  // namespace longstrand::cuda
