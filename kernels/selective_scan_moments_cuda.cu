// The first pass over the segments by moments: every warp brings its own tiles into shared memory.
#include "kernels/cuda_launch.cuh"
#include "kernels/selective_scan_moments_cuda.cuh"

namespace longstrand::cuda {
namespace {

using namespace moments;

constexpr int kGroups = 2;  // of a warp
constexpr int kWarpChannels = kGroups * kChannels;
constexpr int kThreads = kScanThreads / kWarpChannels * 32;
constexpr int kStages = 3;  // tiles in shared memory, those under way among them

template <Pass kPass>
struct Stage {
  static constexpr int kOperands = Tokens<kPass, 4>::kOperands;
  // Rows of 80 and 48 bytes: eight neighbours lie in different banks.
  bfloat16 operand[kOperands][kTile][kWarpChannels + 8];
  bfloat16 coefficient[kTile][kScanStates + 8];
};

template <Pass kPass>
struct Shared {
  alignas(16) Stage<kPass> stage[kThreads / 32][kStages];
};

/// Starts to copy kBytes, or to write as many zeros.
template <int kBytes>
__device__ inline void copy_early(const bfloat16* from, unsigned to, bool exists) {
  const int bytes = exists ? kBytes : 0;
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
  } else {
    asm volatile("cp.async.ca.shared.global.L2::128B [%0], [%1], %3, %2;" ::"r"(to), "l"(from), "r"(bytes),
                 "n"(kBytes));
  }
}

/// Brings a warp's tiles into its stages, in pieces of 8 channels and of 4 states: a thread has piece
/// threadIdx % 4 of rows threadIdx / 4 and 8 further. In place of channels and states that do not exist come
/// others; tokens that do not exist are zero.
template <Pass kPass>
class WarpLoader {
 public:
  using Tile = Stage<kPass>;

  __device__ WarpLoader(Tile* stages, int tokens)
      : operand_to_(shared_address(&stages->operand[0][row()][piece() * 8])),
        coefficient_to_(shared_address(&stages->coefficient[row()][piece() * 4])),
        left_(tokens - row()) {
    keep(operand_to_), keep(coefficient_to_);
  }

  /// `rows`: the token that is taken first; `stride` to the one taken next; `columns`: how many exist.
  __device__ void set_operand(int i, const bfloat16* rows, std::int64_t stride, int columns) {
    operand_[i] = rows + row() * stride + min(piece() * 8, columns - 8), stride_[i] = stride;
  }
  __device__ void set_coefficient(const bfloat16* rows, std::int64_t stride, int columns) {
    coefficient_ = rows + row() * stride + min(piece() * 4, columns - 4), coefficient_stride_ = stride;
  }

  /// Starts to load the next tile, which may lie past the last one.
  __device__ void start() {
#pragma unroll
    for (int i = 0; i < Tile::kOperands; ++i) {
      const unsigned to = operand_to_ + filled_ + i * static_cast<int>(sizeof(Tile::operand[0]));
      copy_early<16>(operand_[i], to, left_ > 0);
      copy_early<16>(operand_[i] + 8 * stride_[i], to + 8 * sizeof(Tile::operand[0][0]), left_ > 8);
      operand_[i] += kTile * stride_[i];
    }
    const unsigned to = coefficient_to_ + filled_;
    copy_early<8>(coefficient_, to, left_ > 0);
    copy_early<8>(coefficient_ + 8 * coefficient_stride_, to + 8 * sizeof(Tile::coefficient[0]), left_ > 8);
    coefficient_ += kTile * coefficient_stride_;
    left_ -= kTile;
    filled_ = after(filled_);
    asm volatile("cp.async.commit_group;");
  }
  /// Waits for the tile after the one before, and gives its place behind the first stage.
  __device__ unsigned finish() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2) : "memory");
    __syncwarp();
    const unsigned tile = read_;
    read_ = after(read_);
    return tile;
  }

 private:
  __device__ static int row() { return static_cast<int>(threadIdx.x % 32 / 4); }
  __device__ static int piece() { return static_cast<int>(threadIdx.x % 4); }
  __device__ static unsigned after(unsigned stage) {
    return stage == (kStages - 1) * sizeof(Tile) ? 0 : stage + sizeof(Tile);
  }

  unsigned operand_to_, coefficient_to_;  // places in the first stage
  const bfloat16 *operand_[Tile::kOperands], *coefficient_;
  std::int64_t stride_[Tile::kOperands], coefficient_stride_;
  int left_;  // rows from the thread's first one on
  unsigned filled_ = 0, read_ = 0;
};

template <Pass kPass>
__global__ void __launch_bounds__(kThreads, kScanBlocksOfMultiprocessor)
    scan_by_moments(const __grid_constant__ ScanOperands<bfloat16> in,
                    const __grid_constant__ Rows<const bfloat16> d_out, float* state, float* sum_dt) {
  extern __shared__ __align__(16) unsigned char memory[];
  constexpr bool kForward = kPass == Pass::forward;
  using Tile = Stage<kPass>;
  wait_for_turn();
  const ScanBlock block(in);
  const int warp = static_cast<int>(threadIdx.x / 32), thread = static_cast<int>(threadIdx.x % 32);
  // Slow channels lie in the same place of all blocks (scan_channel_order): every scheduler gets some of
  // them.
  const int place = static_cast<int>((warp + block.segment) % (kThreads / 32));
  const std::int64_t channel = block.first_channel() + place * kWarpChannels;
  if (channel >= in.channels) return;
  Tile* const stages = reinterpret_cast<Shared<kPass>*>(memory)->stage[warp];
  WarpLoader<kPass> loader(stages, block.count);
  const int channels = static_cast<int>(min(in.channels - channel, std::int64_t{kWarpChannels}));
  const int first = kForward ? max(block.count - 1, 0) : 0;  // token of the segment
  const auto set_operand = [&](int i, const Rows<const bfloat16>& x) {
    loader.set_operand(i, block.at(x, first, channel), kForward ? -x.place_stride : x.place_stride, channels);
  };
  set_operand(0, in.dt);
  set_operand(1, kForward ? in.u : in.z);
  if constexpr (!kForward) set_operand(2, d_out);
  const Rows<const bfloat16>& rows = kForward ? in.b : in.c;
  loader.set_coefficient(block.at(rows, first, in.first_state),
                         kForward ? -rows.place_stride : rows.place_stride, in.states - in.first_state);
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) loader.start();
  using Group = ChannelGroup<kPass, Order::first_to_last>;  // of the tokens as they are loaded
  Group group[kGroups];
#pragma unroll
  for (int j = 0; j < kGroups; ++j) group[j].start(in, channel + j * kChannels);
  std::uint32_t centring = make_centring<kPass, Order::first_to_last>();
  keep(centring);
  // The thread's row for load_transposed: as A takes tokens and channels, as B takes tokens and states.
  const int upper = thread / 16, right = thread / 8 % 2, row = thread % 8;
  unsigned operand_from = shared_address(&stages->operand[0][upper * 8 + row][right * 8]);
  unsigned coefficient_from = shared_address(&stages->coefficient[right * 8 + row][upper * 8]);
  keep(operand_from), keep(coefficient_from);
  bool matters[kGroups];
  for (int i = 0; i * kTile < block.count; ++i) {
    const unsigned tile = loader.finish();
    loader.start();
    if (i % 4 == 0) {
      bool any = false;
#pragma unroll
      for (int j = 0; j < kGroups; ++j) {
        matters[j] = group[j].matters();
        any = any || matters[j];
      }
      if (!any) break;
    }
    std::uint32_t coefficients[4];
    load_transposed(coefficient_from + tile, coefficients);
    const Tile& stage = *reinterpret_cast<const Tile*>(reinterpret_cast<unsigned char*>(stages) + tile);
#pragma unroll
    for (int j = 0; j < kGroups; ++j) {
      if (!matters[j]) continue;
      Tokens<kPass, 4> tokens;
#pragma unroll
      for (int i = 0; i < Tile::kOperands; ++i) {
        load_transposed(operand_from + tile + i * sizeof(Tile::operand[0]) + j * kChannels * sizeof(bfloat16),
                        tokens.operand[i]);
      }
      constexpr int kStride = sizeof(Tile::coefficient[0]) / sizeof(bfloat16);
      group[j].template add<kStride>(tokens, coefficients, stage.coefficient[0], centring);
    }
  }
  asm volatile("cp.async.wait_all;");
#pragma unroll
  for (int j = 0; j < kGroups; ++j) {
    group[j].store(in, channel + j * kChannels, block.segment * in.lanes + block.lane, state, sum_dt);
  }
}

template <Pass kPass>
void launch(const ScanOperands<bfloat16>& in, const Rows<const bfloat16>& d_out,
            const SegmentStates& segments, Context& context) {
  const auto kernel = scan_by_moments<kPass>;
  allow_shared_memory(kernel, sizeof(Shared<kPass>), "selective scan: shared memory");
  for_each_state_group(in, [&](const ScanOperands<bfloat16>& group) {
    launch_early(kernel, scan_grid(in.lanes, in.channels, in.segments), kThreads, sizeof(Shared<kPass>),
                 session_of(context), "selective scan: segments", group, d_out, segments.state.data,
                 segments.sum_dt.data);
  });
}

}  // namespace

bool scan_by_moments(Pass pass, const ScanOperands<bfloat16>& in, const Rows<const bfloat16>& d_out,
                     const SegmentStates& segments, Context& context) {
  const Rows<const bfloat16>& coefficients = pass == Pass::forward ? in.b : in.c;
  if (!in.aligned || in.states % 4 != 0 || !coefficients.aligned(8)) return false;
  if (pass == Pass::forward) {
    launch<Pass::forward>(in, d_out, segments, context);
  } else {
    launch<Pass::backward>(in, d_out, segments, context);
  }
  return true;
}

}  // namespace longstrand::cuda
