// x_proj, dt_proj with softplus, and the scan's first pass over the segments, in one kernel that reads u and
// writes dt once. A block walks along a segment with all channels, 64 tokens at a time; a warp has 32
// channels. In turn a warpgroup makes x_dbl of the next tile from all channels (wgmma), while every warp
// makes the steps of its own channels from r (mma.sync), puts them in place of u in shared memory, from where
// they are written, and takes the tile into its states (selective_scan_moments_cuda.cuh).
#include <limits>

#include "kernels/cuda_launch.cuh"
#include "kernels/hopper.cuh"
#include "kernels/selection_cuda.hpp"
#include "kernels/selective_scan_moments_cuda.cuh"

namespace longstrand::cuda {
namespace selection {
namespace {

using hopper::Barrier;
using hopper::kWarpgroup;
using moments::Order;
using moments::Tokens;

constexpr int kRows = 64;                       // tokens of a tile
constexpr int kParts = kRows / moments::kTile;  // of a tile
constexpr int kGroups = 2;                      // of a warp
constexpr int kWarpChannels = kGroups * moments::kChannels;
constexpr int kMostWarps = 16;
constexpr int kSlots = 2;  // for tiles
constexpr int kMostRank = 16;
constexpr int kWidth = kMostRank + 2 * kScanStates;  // of x_dbl in shared memory, where r fills up kMostRank
constexpr int kStride = kWidth + 8;                  // eight neighbouring rows lie in different banks
constexpr int kTile_bytes = kRows * kWarpChannels * sizeof(bfloat16);  // a warp's
constexpr int kWeightBlock_bytes = kWidth * hopper::kBlockRow_bytes;

struct Operands {
  ScanOperands<bfloat16> scan;  // its B and C are not read
  const bfloat16* x_proj;
  std::int64_t x_proj_stride;
  const bfloat16* dt_proj;
  std::int64_t dt_proj_stride;
  const float* dt_bias;
  int rank;
  Rows<bfloat16> x_dbl;
  float *state, *sum_dt;  // what a segment leaves of no state
};

/// A segment in tiles, in the order in which they are taken: from the end of the walk on, then those that are
/// nothing but padding. At its ends a tile may reach into other segments, whose blocks write the same.
struct Walk {
  std::int64_t row_of_states;  // of the segment and lane
  int lane;
  int first_row, first_padding_row;  // of the lane
  int count, tiles, tiles_of_walk;
};

template <Order kOrder>
__device__ inline Walk make_walk(const ScanOperands<bfloat16>& in) {
  const ScanBlock block(in, blockIdx.x * static_cast<unsigned>(ceil_div(in.channels, kScanThreads)));
  Walk walk{.row_of_states = block.segment * in.lanes + block.lane,
            .lane = static_cast<int>(block.lane),
            .count = block.count};
  if constexpr (kOrder == Order::last_to_first) {
    walk.first_row = static_cast<int>(block.begin);
    walk.tiles = walk.tiles_of_walk = (block.rows + kRows - 1) / kRows;
  } else {
    const std::int64_t valid = in.valid[block.lane];
    walk.first_row = static_cast<int>(valid - block.begin) - block.count;
    walk.first_padding_row = static_cast<int>(max(block.begin, valid));
    walk.tiles_of_walk = (block.count + kRows - 1) / kRows;
    walk.tiles = walk.tiles_of_walk + (block.rows - block.count + kRows - 1) / kRows;
  }
  return walk;
}

struct Tile {
  int row;   // of the lane, its first; in reverse it may be negative
  int left;  // tokens from there on that the walk takes
};

/// The i-th of a walk.
template <Order kOrder>
__device__ inline Tile tile(const Walk& walk, int i) {
  if constexpr (kOrder == Order::last_to_first) {
    const int first = (walk.tiles - 1 - i) * kRows;
    return {walk.first_row + first, walk.count - first};
  } else {
    if (i < walk.tiles_of_walk) return {walk.first_row + i * kRows, walk.count - i * kRows};
    return {walk.first_padding_row + (i - walk.tiles_of_walk) * kRows, 0};
  }
}

/// What a block of so many warps has in shared memory.
template <int kWarps>
struct Shared {
  alignas(1024) unsigned char tile[kWarps][kSlots][kTile_bytes];  // of u, later of dt
  alignas(1024) unsigned char x_proj[kWarps / 2][kWeightBlock_bytes];
  uint4 dt_proj[kWarps * kGroups][32];  // as A
  float dt_bias[kWarps * kWarpChannels];
  alignas(16) bfloat16 x_dbl[kSlots][kRows][kStride];
  Barrier filled[kSlots];     // the slots of all warps
  Barrier projected[kSlots];  // to x_dbl
  Barrier passed[kSlots];     // x_dbl of a slot has been read
  Walk walk;
};

template <int kWarps>
__device__ inline void load_weights(const Operands& op, Shared<kWarps>& shared) {
  constexpr int kPieces = kWarps * kWarpChannels / 8, kThreads = kWarps * 32;
#pragma unroll 8
  for (int i = static_cast<int>(threadIdx.x); i < kWidth * kPieces; i += kThreads) {
    const int row = i / kPieces, piece = i % kPieces;
    const int from = row < kMostRank ? row : row - kMostRank + op.rank;
    uint4 values{};
    if (row >= kMostRank || row < op.rank) {
      values = *reinterpret_cast<const uint4*>(op.x_proj + from * op.x_proj_stride + piece * 8);
    }
    unsigned char* const to = shared.x_proj[piece / 8] + hopper::swizzled_offset_bytes(row, piece % 8);
    *reinterpret_cast<uint4*>(to) = values;
  }
  const int thread = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x) / 32; i < kWarps * kGroups; i += kWarps) {
    std::uint32_t part[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int channel = i * moments::kChannels + thread / 4 + j % 2 * 8, input = thread % 4 * 2 + j / 2 * 8;
      const bfloat16* const from = op.dt_proj + channel * op.dt_proj_stride + input;
      part[j] = input < op.rank ? *reinterpret_cast<const std::uint32_t*>(from) : 0;
    }
    shared.dt_proj[i][thread] = {part[0], part[1], part[2], part[3]};
  }
}

/// kMoments: for the states as well.
template <int kWarps, bool kMoments, Order kOrder>
class Warp {
 public:
  __device__ Warp(const Operands& op, const CUtensorMap& u, const CUtensorMap& dt, Shared<kWarps>& shared)
      : op_(op),
        u_(u),
        dt_(dt),
        shared_(shared),
        tile_(shared_address(shared.tile[place()])),
        row_of_tile_(row_of_tile()),
        row_of_x_dbl_(shared_address(&shared.x_dbl[0][thread() % 16][thread() / 16 * 8])),
        centring_(moments::make_centring<Pass::forward, kOrder>()) {
    moments::keep(row_of_tile_), moments::keep(row_of_x_dbl_), moments::keep(centring_);
  }

  __device__ void start() {
    if (thread() == 0) {
      for (int i = 0; i < min(shared_.walk.tiles, kSlots); ++i) load(i);
    }
    if constexpr (kMoments) {
#pragma unroll
      for (int j = 0; j < kGroups; ++j) group_[j].start(op_.scan, channel() + j * moments::kChannels);
    }
  }

  __device__ void run() {
    if (warpgroup() == 0) project(0);
    constexpr int kWarpgroups = kWarps * 32 / kWarpgroup;
#pragma unroll 1
    for (int i = 0; i < shared_.walk.tiles; ++i) {
      const int slot = i % kSlots;
      shared_.filled[slot].wait(i / kSlots % 2);
      shared_.projected[slot].wait(i / kSlots % 2);
      bool matters[kGroups] = {};
      if constexpr (kMoments) {
#pragma unroll
        for (int j = 0; j < kGroups; ++j) matters[j] = group_[j].matters();
      }
      int left = tile<kOrder>(shared_.walk, i).left;
      if (kOrder == Order::last_to_first) left -= kRows - moments::kTile;
#pragma unroll 1
      for (int part = 0; part < kParts; ++part) {
        take(slot, kOrder == Order::first_to_last ? part : kParts - 1 - part, left, matters);
        left += kOrder == Order::first_to_last ? -moments::kTile : moments::kTile;
        // The slot of the tile before is free once its steps have been written.
        if (part == 0 && i > 0 && i + 1 < shared_.walk.tiles && thread() == 0) {
          hopper::wait_for_written_tiles();
          load(i + 1);
        }
        if (part == kProjecting_part && i + 1 < shared_.walk.tiles && (i + 1) % kWarpgroups == warpgroup()) {
          project(i + 1);
        }
      }
      shared_.passed[slot].arrive();
      hopper::fence_shared_writes();
      __syncwarp();
      if (thread() == 0) {
        hopper::write_tile(dt_, shared_.tile[place()][slot], channel(), tile<kOrder>(shared_.walk, i).row,
                           shared_.walk.lane);
      }
    }
    if (thread() == 0) hopper::wait_for_written_tiles();
    if constexpr (kMoments) {
#pragma unroll
      for (int j = 0; j < kGroups; ++j) {
        group_[j].store(op_.scan, channel() + j * moments::kChannels, shared_.walk.row_of_states, op_.state,
                        op_.sum_dt);
      }
    }
  }

 private:
  static constexpr int kProjecting_part = 1;  // after which x_dbl of the next tile is made

  __device__ static int thread() { return static_cast<int>(threadIdx.x) % 32; }
  __device__ static int warp() { return static_cast<int>(threadIdx.x) / 32; }
  __device__ static int warpgroup() { return static_cast<int>(threadIdx.x) / kWarpgroup; }
  /// Among the blocks of 32 channels. Every scan_grid block has its slow ones in the same place
  /// (scan_channel_order): every scheduler gets some of them.
  __device__ static int place() { return warp() / 4 * 4 + (warp() + warp() / 4) % 4; }
  __device__ static int channel() { return place() * kWarpChannels; }
  /// Where the thread's row of 16 tokens and channels is, for load_transposed.
  __device__ static unsigned row_of_tile() {
    return hopper::swizzled_offset_bytes<kWarpChannels>(thread() / 16 * 8 + thread() % 8, thread() / 8 % 2);
  }

  /// Starts to copy u of tile i; by one thread.
  __device__ void load(int i) const {
    const int slot = i % kSlots;
    shared_.filled[slot].arrive_expecting(kTile_bytes);
    hopper::copy_tile(u_, shared_.tile[place()][slot], shared_.filled[slot], channel(),
                      tile<kOrder>(shared_.walk, i).row, shared_.walk.lane);
  }

  /// x_dbl of tile i; a warpgroup.
  __device__ __forceinline__ void project(int i) const {
    const int slot = i % kSlots;
    shared_.filled[slot].wait(i / kSlots % 2);
    float sums[kWidth / 2];
    hopper::begin_products();
#pragma unroll
    for (int block = 0; block < kWarps; ++block) {
      const hopper::Operand a = hopper::operand<kWarpChannels>(shared_.tile[block][slot]);
      const hopper::Operand b =
          hopper::operand(shared_.x_proj[block / 2]) + block % 2 * 2 * hopper::kStepOfOperand;
      hopper::multiply(sums, a, b, block > 0);
      hopper::multiply(sums, a + hopper::kStepOfOperand, b + hopper::kStepOfOperand, true);
    }
    hopper::commit_products();
    hopper::wait_for_products<0>(sums);
    shared_.passed[slot].wait(i / kSlots % 2 ^ 1);
    const int first_row = warp() % 4 * 16 + thread() / 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first_row + half * 8, row_of_lane = tile<kOrder>(shared_.walk, i).row + row;
      bfloat16* const to_shared = shared_.x_dbl[slot][row];
      bfloat16* const to = op_.x_dbl.at(shared_.walk.lane, row_of_lane, 0);
      const bool exists = row_of_lane >= 0 && row_of_lane < op_.scan.tokens;
#pragma unroll
      for (int j = 0; j < kWidth / 8; ++j) {
        const int column = j * 8 + thread() % 4 * 2;
        const std::uint32_t pair = round_pair(sums[j * 4 + half * 2], sums[j * 4 + half * 2 + 1]);
        *reinterpret_cast<std::uint32_t*>(to_shared + column) = pair;
        const int column_of_row = column < kMostRank ? column : column - kMostRank + op_.rank;
        if (exists && (column >= kMostRank || column < op_.rank)) {
          *reinterpret_cast<std::uint32_t*>(to + column_of_row) = pair;
        }
      }
    }
    shared_.projected[slot].arrive();
  }

  /// The `part`-th 16 tokens of a tile, of which the walk takes the first `left`.
  __device__ __forceinline__ void take(int slot, int part, int left, const bool (&matters)[kGroups]) {
    const int first = slot * kRows + part * moments::kTile;
    const unsigned x_dbl = row_of_x_dbl_ + first * static_cast<unsigned>(sizeof(shared_.x_dbl[0][0]));
    const unsigned tile =
        tile_ + row_of_tile_ + first * static_cast<unsigned>(kWarpChannels * sizeof(bfloat16));
#pragma unroll
    for (int j = 0; j < kGroups; ++j) {
      const unsigned of_group = tile ^ (j * moments::kChannels * sizeof(bfloat16));
      Tokens<Pass::forward, 4> tokens;
      make_steps(j, x_dbl, tokens.operand[0]);
      if constexpr (kMoments) load_transposed(of_group, tokens.operand[1]);
      __syncwarp();  // all of the warp have read what others write now
      store_transposed(of_group, tokens.operand[0]);
      if constexpr (kMoments) {
        if (left <= 0 || !matters[j]) continue;
        if (left < moments::kTile) keep_first(left, tokens.operand[0]);
        std::uint32_t b[4];
        load_transposed(x_dbl + kMostRank * sizeof(bfloat16), b);
        group_[j].template add<kStride>(tokens, b, &shared_.x_dbl[0][first][kMostRank], centring_);
      }
    }
  }

  __device__ void make_steps(int group, unsigned x_dbl, std::uint32_t (&dt)[4]) const {
    const int first = channel() + group * moments::kChannels;
    const float bias[] = {shared_.dt_bias[first + thread() / 4], shared_.dt_bias[first + thread() / 4 + 8]};
    const uint4 weight = shared_.dt_proj[place() * kGroups + group][thread()];
    const std::uint32_t a[] = {weight.x, weight.y, weight.z, weight.w};
    std::uint32_t r[4];  // of 8 tokens and 8 of rank, the tokens first
    load_rows(x_dbl, r);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum[] = {bias[0], bias[0], bias[1], bias[1]};
      multiply_add(sum, a, r[half], r[2 + half]);
      dt[half * 2] = round_pair(softplus_coarse(sum[0]), softplus_coarse(sum[1]));
      dt[half * 2 + 1] = round_pair(softplus_coarse(sum[2]), softplus_coarse(sum[3]));
    }
  }

  /// Gives all tokens but the first `count` no length.
  __device__ static void keep_first(int count, std::uint32_t (&dt)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int token = i / 2 * 8 + thread() % 4 * 2;
      dt[i] &= (token < count ? 0xFFFFU : 0) | (token + 1 < count ? 0xFFFF0000U : 0);
    }
  }

  const Operands& op_;
  const CUtensorMap &u_, &dt_;
  Shared<kWarps>& shared_;
  const unsigned tile_;  // the warp's first slot
  // The thread's rows of 16 tokens: in a tile, and of r (B lies kMostRank further).
  std::uint32_t row_of_tile_, row_of_x_dbl_;
  std::uint32_t centring_;
  moments::ChannelGroup<Pass::forward, kOrder> group_[kGroups];
};

template <int kWarps, bool kMoments, Order kOrder>
__global__ void __launch_bounds__(kWarps * 32, kMostWarps / kWarps)
    selection_kernel(const __grid_constant__ Operands op, const __grid_constant__ CUtensorMap u,
                     const __grid_constant__ CUtensorMap dt) {
  extern __shared__ __align__(1024) unsigned char memory[];
  auto& shared = *reinterpret_cast<Shared<kWarps>*>(memory);
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < kSlots; ++slot) {
      shared.filled[slot].init(kWarps);
      shared.projected[slot].init(kWarpgroup);
      shared.passed[slot].init(kWarps * 32);
    }
    hopper::fence_barriers();
  }
  load_weights(op, shared);
  wait_for_turn();
  if (threadIdx.x == 0) shared.walk = make_walk<kOrder>(op.scan);
  shared.dt_bias[threadIdx.x] = op.dt_bias[threadIdx.x];
  __syncthreads();
  Warp<kWarps, kMoments, kOrder> warp(op, u, dt, shared);
  warp.start();
  hopper::fence_shared_writes();
  __syncthreads();
  warp.run();
}

bool fits(const SelectionInput<bfloat16>& input, View<const bfloat16, 2> x_proj,
          View<const bfloat16, 2> dt_proj, const SelectionOutput<bfloat16>& output) {
  constexpr std::int64_t kFewestTokens = 4096;  // fewer are too little for so many weights
  const auto [lanes, tokens, channels] = input.u.shape;
  const std::int64_t rank = dt_proj.shape[1];
  return (channels == 128 || channels == 256 || channels == 512) && input.decay.shape[0] == kScanStates &&
         rank <= kMostRank && rank % 2 == 0 && lanes * tokens >= kFewestTokens && tokens >= kRows &&
         tokens <= std::numeric_limits<int>::max() - kRows && rows_hold_packets<8>(input.u) &&
         rows_hold_packets<8>(output.dt) && rows_hold_packets<8>(x_proj) && rows_hold_packets<2>(dt_proj) &&
         rows_hold_packets<2>(output.x_dbl);
}

template <int kWarps, bool kMoments, Order kOrder>
void launch(const Operands& op, const CUtensorMap& u, const CUtensorMap& dt, Session& session) {
  const auto kernel = selection_kernel<kWarps, kMoments, kOrder>;
  allow_shared_memory(kernel, sizeof(Shared<kWarps>), "selection: shared memory");
  const auto blocks = static_cast<unsigned>(op.scan.segments * op.scan.lanes);
  launch_early(kernel, blocks, kWarps * 32, sizeof(Shared<kWarps>), session, "selection", op, u, dt);
}

template <bool kMoments, Order kOrder>
void launch(const Operands& op, const CUtensorMap& u, const CUtensorMap& dt, Session& session) {
  switch (op.scan.channels / kWarpChannels) {
    case 16:
      return launch<16, kMoments, kOrder>(op, u, dt, session);
    case 8:
      return launch<8, kMoments, kOrder>(op, u, dt, session);
    default:
      return launch<4, kMoments, kOrder>(op, u, dt, session);
  }
}

}  // namespace
}  // namespace selection

bool selection_forward(const SelectionInput<bfloat16>& input, View<const bfloat16, 2> x_proj,
                       View<const bfloat16, 2> dt_proj, const SelectionOutput<bfloat16>& output,
                       Context& context) {
  using namespace selection;
  Session& session = session_of(context);
  if (session.compute_capability != 90 || !fits(input, x_proj, dt_proj, output)) return false;
  const std::int64_t rank = dt_proj.shape[1];
  const bool wants_states = !output.segment_states.empty();
  // Without states no row depends on another.
  const Direction direction = wants_states ? input.direction : Direction::forward;
  const SelectiveScanInput<bfloat16> scan{.u = input.u,
                                          .dt = output.dt,
                                          .b = output.x_dbl.columns(rank, kScanStates),
                                          .c = output.x_dbl.columns(rank + kScanStates, kScanStates),
                                          .z = input.u,
                                          .decay = input.decay,
                                          .d = {},
                                          .state = input.state,
                                          .valid = input.valid,
                                          .direction = direction};
  Operands op{.scan = ScanOperands<bfloat16>(scan, session),
              .x_proj = x_proj.data,
              .x_proj_stride = x_proj.stride[0],
              .dt_proj = dt_proj.data,
              .dt_proj_stride = dt_proj.stride[0],
              .dt_bias = input.dt_bias.data,
              .rank = static_cast<int>(rank),
              .x_dbl = Rows<bfloat16>(output.x_dbl, Direction::forward),
              .state = nullptr,
              .sum_dt = nullptr};
  const CUtensorMap u = hopper::tile_map(input.u, kRows, kWarpChannels);
  const CUtensorMap dt = hopper::tile_map(output.dt, kRows, kWarpChannels);
  if (!wants_states) {
    launch<false, Order::last_to_first>(op, u, dt, session);
    return true;
  }
  const Arena::Scope scope(context.scratch);
  const SegmentStates segments = take_segments(op.scan, output.segment_states, context);
  op.state = segments.state.data, op.sum_dt = segments.sum_dt.data;
  if (direction == Direction::forward) {
    launch<true, Order::last_to_first>(op, u, dt, session);
  } else {
    launch<true, Order::first_to_last>(op, u, dt, session);
  }
  connect_segments_forward(op.scan, input.state, segments, {}, context);
  return true;
}

}  // namespace longstrand::cuda
