// A block has the weight of 128 channels of x and of z in shared memory and walks along a run of tokens, 64
// at a time. Two warpgroups take the tiles in turn, so that one of them multiplies while the other writes z,
// and x to shared memory; from there a third one convolves it.
#include <algorithm>
#include <array>
#include <limits>

#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_math.cuh"
#include "kernels/cuda_packet.cuh"
#include "kernels/linear_conv_cuda.hpp"
#include "kernels/linear_conv_hopper.cuh"
#include "kernels/transfer.hpp"

namespace longstrand::cuda {
namespace linear_conv {
namespace {

/// -log2(e) times the convolution's weight and bias, of a thread's channels.
struct Filter {
  float weight[kTaps][kPiece];
  float bias[kPiece];

  __device__ Filter(const Operands& op, int channel) {
#pragma unroll
    for (int i = 0; i < kPiece; ++i) {
      const bool there = channel + i < op.channels;
      bias[i] = there ? -kLog2E * op.conv_bias[channel + i] : 0.0F;
#pragma unroll
      for (int k = 0; k < kTaps; ++k) {
        weight[k][i] = there ? -kLog2E * op.conv_weight[(channel + i) * op.conv_weight_stride + k] : 0.0F;
      }
    }
  }
};

__device__ inline void unpack(uint4 piece, float (&to)[kPiece]) {
  const std::uint32_t pairs[] = {piece.x, piece.y, piece.z, piece.w};
#pragma unroll
  for (int i = 0; i < kPiece; ++i) {
    to[i] = i % 2 == 0 ? first_of(pairs[i / 2]) : second_of(pairs[i / 2]);
  }
}

/// A piece in one access, which the compiler would take apart to have parts of it earlier.
__device__ inline void store(uint4 piece, bfloat16* to) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(piece.x), "r"(piece.y), "r"(piece.z),
               "r"(piece.w));
}

/// Where in a tile of x in shared memory a piece of a row lies. Pieces are exchanged so that neighbouring
/// rows, which are written at once, lie in different banks.
__device__ inline int offset_of_x(int row, int piece) {
  return row * kRow_bytes + (piece ^ (row % 2 * 4)) * 16;
}

/// A warpgroup that multiplies.
template <int kSteps>
class Multiplier {
 public:
  __device__ Multiplier(const Operands& op, const CUtensorMap& input, const Walk& walk, Shared& shared,
                        int group)
      : op_(op), input_(input), walk_(walk), shared_(shared), group_(group) {}

  __device__ void run() const {
    for (Tile<kSteps> tile(op_, walk_, group_); tile.number < walk_.tiles; tile.advance(op_, kGroups)) {
      float sums[kSums];  // the first half of x, the others of z
      multiply(tile, sums);
      if (tile.number >= kGroups) shared_.read[group_].wait(tile.number / kGroups % 2 ^ 1);
      hand_on_x(sums);
      hopper::arrive_threads(kWritten + group_, 2 * kWarpgroup);
      if (tile.number < walk_.history) continue;
      if (op_.x.data != nullptr) write(op_.x, tile, sums);
      write(op_.z, tile, sums + kSums / 2);
    }
  }

 private:
  static constexpr int kSums = kChannels;  // of a thread

  __device__ void multiply(const Tile<kSteps>& tile, float (&sums)[kSums]) const {
    if (tile.number > 0) hopper::sync_threads(kTurn + group_, 2 * kWarpgroup);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int slot = tile.slot(step);
      shared_.filled[slot].wait(tile.parity());
      hopper::begin_products();
      const hopper::Operand a = hopper::operand(shared_.input[slot]);
      const hopper::Operand b = hopper::operand(shared_.weight[step]);
#pragma unroll
      for (int i = 0; i < hopper::kBlockColumns / 16; ++i) {
        hopper::multiply(sums, a + i * hopper::kStepOfOperand, b + i * hopper::kStepOfOperand, step + i > 0);
      }
      hopper::commit_products();
      if (step == 0) continue;
      hopper::wait_for_products<1>(sums);
      refill(tile, step - 1);
    }
    if (tile.number + 1 < walk_.tiles) hopper::arrive_threads(kTurn + (group_ ^ 1), 2 * kWarpgroup);
    hopper::wait_for_products<0>(sums);
    refill(tile, kSteps - 1);
  }

  /// Has the slot of a step, which is done, filled for a later tile.
  __device__ void refill(const Tile<kSteps>& tile, int step) const {
    if (tile.number + Tile<kSteps>::kAhead >= walk_.tiles || threadIdx.x % 32 != 0) return;
    Barrier& emptied = shared_.emptied[tile.slot(step)];
    emptied.arrive();
    if (threadIdx.x % kWarpgroup != 0) return;
    emptied.wait(tile.parity());
    Tile<kSteps> later = tile;
    later.advance(op_, Tile<kSteps>::kAhead);
    copy_input(input_, later, step, shared_);
  }

  /// The eight neighbouring sums of a row and 32 columns.
  __device__ static uint4 rounded(const float* sums) {
    return {round_pair(sums[0], sums[1]), round_pair(sums[4], sums[5]), round_pair(sums[8], sums[9]),
            round_pair(sums[12], sums[13])};
  }
  /// The first of the two rows of a thread's sums, which are 8 apart.
  __device__ static int row_of_sums() {
    return static_cast<int>(threadIdx.x) % kWarpgroup / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
  }

  __device__ void hand_on_x(const float* sums) const {
    const int row = row_of_sums(), piece = static_cast<int>(threadIdx.x) % 4;
    // Eight rows, and eight pieces, further on they are exchanged in the same way.
    unsigned char* const to[] = {shared_.x[group_] + offset_of_x(row, piece),
                                 shared_.x[group_] + offset_of_x(row, piece + 4)};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < kChannels / 32; ++i) {
        *reinterpret_cast<uint4*>(to[i % 2] + half * 8 * kRow_bytes + i / 2 * 8 * 16) =
            rounded(sums + i * 16 + half * 2);
      }
    }
  }

  __device__ void write(const Rows<bfloat16>& rows, const Tile<kSteps>& tile, const float* sums) const {
    if (walk_.channel + kChannels <= op_.channels && tile.row + kRows <= op_.tokens) {
      write<true>(rows, tile, sums);
    } else {
      write<false>(rows, tile, sums);
    }
  }
  /// kWhole, here and below: all rows and channels are there.
  template <bool kWhole>
  __device__ void write(const Rows<bfloat16>& rows, const Tile<kSteps>& tile, const float* sums) const {
    const int channel = walk_.channel + static_cast<int>(threadIdx.x) % 4 * kPiece;
    bfloat16* to = rows.at(tile.lane, tile.row + row_of_sums(), channel);
#pragma unroll
    for (int half = 0; half < 2; ++half, to += 8 * rows.place_stride) {
      if (!kWhole && tile.row + row_of_sums() + half * 8 >= op_.tokens) return;
#pragma unroll
      for (int i = 0; i < kChannels / 32; ++i) {
        if (kWhole || channel + i * 32 < op_.channels) store(rounded(sums + i * 16 + half * 2), to + i * 32);
      }
    }
  }

  const Operands& op_;
  const CUtensorMap& input_;
  const Walk& walk_;
  Shared& shared_;
  const int group_;
};

/// The warpgroup that convolves. A thread has kStretch neighbouring rows of a piece.
template <int kSteps>
class Convolver {
 public:
  __device__ Convolver(const Operands& op, const Walk& walk, Shared& shared)
      : op_(op),
        walk_(walk),
        shared_(shared),
        piece_(static_cast<int>(threadIdx.x) % kPieces),
        first_row_(static_cast<int>(threadIdx.x) % kWarpgroup / kPieces * kStretch),
        channel_(walk.channel + piece_ * kPiece),
        filter_(op, channel_) {}

  __device__ void run() const {
    const bool all_channels = walk_.channel + kChannels <= op_.channels;
    std::int64_t valid = 0;  // tokens of the lane
    for (Tile<kSteps> tile(op_, walk_, 0); tile.number < walk_.tiles; tile.advance(op_, 1)) {
      if (tile.number == 0 || tile.row == 0) valid = op_.valid[tile.lane];
      // From here on. Far more come to the same.
      const int left = static_cast<int>(min(valid - tile.row, std::int64_t{kRows + 1}));
      hopper::sync_threads(kWritten + tile.number % kGroups, 2 * kWarpgroup);
      if (left >= kRows && all_channels && tile.number >= walk_.history) {
        finish<true>(tile, left);
      } else {
        finish<false>(tile, left);
      }
    }
  }

 private:
  __device__ uint4 row(int group, int row) const {
    return *reinterpret_cast<const uint4*>(shared_.x[group] + offset_of_x(row, piece_));
  }

  template <bool kWhole>
  __device__ void finish(const Tile<kSteps>& tile, int valid) const {
    const int group = tile.number % kGroups;
    uint4 rows[kStretch];
#pragma unroll
    for (int t = 0; t < kStretch; ++t) rows[t] = row(group, first_row_ + t);
    float window[kTaps][kPiece];  // first the x before a thread's rows, later those of a row
    load_history(tile, window);
    if (tile.number > 0) shared_.read[group ^ 1].arrive();
    if (!kWhole && (tile.number < walk_.history || channel_ >= op_.channels)) return;
    const bool ends_here = valid > 0 ? valid <= kRows : tile.row == 0;
    if (ends_here && first_row_ == 0) write_final_state(tile, valid, window);
    convolve<kWhole>(tile, valid, rows, window);
  }

  /// The first kTaps - 1 rows of the window. A walk's first tile that is only history has none itself.
  __device__ void load_history(const Tile<kSteps>& tile, float (*window)[kPiece]) const {
    const bool own = first_row_ > 0;
    if (own || (tile.row > 0 && tile.number > 0)) {
      const int group = own ? tile.number % kGroups : (tile.number + 1) % kGroups;
      const int before = own ? first_row_ : kRows;
#pragma unroll
      for (int k = 0; k < kTaps - 1; ++k) unpack(row(group, before - (kTaps - 1) + k), window[k]);
    } else if (tile.row == 0 && channel_ < op_.channels) {
#pragma unroll
      for (int k = 0; k < kTaps - 1; ++k) {
#pragma unroll
        for (int i = 0; i < kPiece; ++i) window[k][i] = *op_.state.at(tile.lane, k, channel_ + i);
      }
    }
  }

  /// The last x of a lane of which `valid` tokens are in this tile or, with none at all, before it.
  __device__ void write_final_state(const Tile<kSteps>& tile, int valid,
                                    const float (*window)[kPiece]) const {
#pragma unroll
    for (int k = 0; k < kTaps - 1; ++k) {
      const int at = valid - (kTaps - 1) + k;
      float x[kPiece];
      if (at >= 0) unpack(row(tile.number % kGroups, at), x);
#pragma unroll
      for (int i = 0; i < kPiece; ++i) {
        if (at < 0) x[i] = at == -3 ? window[0][i] : at == -2 ? window[1][i] : window[2][i];
        *op_.final_state.at(tile.lane, k, channel_ + i) = x[i];
      }
    }
  }

  /// A thread's rows; those of the tile at and past `valid` are padding.
  template <bool kWhole>
  __device__ void convolve(const Tile<kSteps>& tile, int valid, const uint4 (&rows)[kStretch],
                           float (&window)[kTaps][kPiece]) const {
    bfloat16* to = op_.u.at(tile.lane, tile.row + first_row_, channel_);
#pragma unroll
    for (int t = 0; t < kStretch; ++t, to += op_.u.place_stride) {
      if (!kWhole && tile.row + first_row_ + t >= op_.tokens) return;
      unpack(rows[t], window[(t + kTaps - 1) % kTaps]);
      float result[kPiece];
#pragma unroll
      for (int i = 0; i < kPiece; ++i) {
        float sum = filter_.bias[i];
#pragma unroll
        for (int k = 0; k < kTaps; ++k) sum = fmaf(filter_.weight[k][i], window[(t + k) % kTaps][i], sum);
        result[i] = kWhole || first_row_ + t < valid ? silu_of_scaled(sum) : 0.0F;
      }
      store({round_pair(result[0], result[1]), round_pair(result[2], result[3]),
             round_pair(result[4], result[5]), round_pair(result[6], result[7])},
            to);
    }
  }

  const Operands& op_;
  const Walk& walk_;
  Shared& shared_;
  const int piece_, first_row_;
  const int channel_;  // the first of the piece
  const Filter filter_;
};

template <int kSteps>
__global__ void __launch_bounds__(kThreads, 1)
    linear_conv_kernel(const __grid_constant__ Operands op, const __grid_constant__ CUtensorMap input) {
  extern __shared__ __align__(1024) unsigned char memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const Walk walk(op);
  if (threadIdx.x == 0) {
    for (Barrier& barrier : shared.filled) barrier.init(1);
    for (Barrier& barrier : shared.emptied) barrier.init(kWarpgroup / 32);
    for (Barrier& barrier : shared.read) barrier.init(kWarpgroup);
    hopper::fence_barriers();
  }
  load_weight<kSteps>(op, walk.channel, shared);
  wait_for_turn();
  if (threadIdx.x == 0) {
    Tile<kSteps> tile(op, walk, 0);
    for (; tile.number < min(walk.tiles, Tile<kSteps>::kAhead); tile.advance(op, 1)) {
      for (int step = 0; step < kSteps; ++step) copy_input(input, tile, step, shared);
    }
  }
  hopper::fence_shared_writes();
  __syncthreads();
  const int group = static_cast<int>(threadIdx.x) / kWarpgroup;
  if (group < kGroups) {
    Multiplier<kSteps>(op, input, walk, shared, group).run();
  } else {
    Convolver<kSteps>(op, walk, shared).run();
  }
}

template <int kSteps>
void launch(const Operands& op, const CUtensorMap& input, Session& session) {
  allow_shared_memory(linear_conv_kernel<kSteps>, sizeof(Shared), "linear convolution: shared memory");
  const int runs = std::clamp(session.multiprocessors / op.slices, 1, op.tiles);
  const auto blocks = static_cast<unsigned>(runs * op.slices);
  launch_early(linear_conv_kernel<kSteps>, blocks, kThreads, sizeof(Shared), session, "linear convolution",
               op, input);
}

bool fits(const LinearConvInput<bfloat16>& input, View<const bfloat16, 2> weight,
          const LinearConvOutput<bfloat16>& output) {
  constexpr std::int64_t kFewestTokens = 4096;  // fewer are too little for so many weights
  const auto [lanes, tokens, inputs] = input.input.shape;
  const std::int64_t channels = output.u.shape[2], rows = lanes * ceil_div(tokens, kRows) * kRows;
  return input.direction == Direction::forward && input.conv_weight.shape[1] == kTaps &&
         inputs <= kMostSteps * hopper::kBlockColumns && inputs % kPiece == 0 && channels % kPiece == 0 &&
         lanes * tokens >= kFewestTokens && rows <= 2 * lanes * tokens &&
         rows <= std::numeric_limits<int>::max() - kRows && rows_hold_packets<kPiece>(input.input) &&
         rows_hold_packets<kPiece>(weight) && rows_hold_packets<kPiece>(output.u) &&
         rows_hold_packets<kPiece>(output.z) && rows_hold_packets<kPiece>(output.x) &&
         rows_hold_packets(input.state) && output.state.stride[1] == channels;
}

}  // namespace
}  // namespace linear_conv

bool linear_conv_forward(const LinearConvInput<bfloat16>& input, View<const bfloat16, 2> weight,
                         const LinearConvOutput<bfloat16>& output, Context& context) {
  using namespace linear_conv;
  Session& session = session_of(context);
  if (session.compute_capability != 90 || !fits(input, weight, output)) return false;
  const auto [lanes, tokens, channels] = output.u.shape;
  const Arena::Scope scope(context.scratch);
  const auto final_state = context.scratch.take<float, 3>(output.state.shape);
  const std::int64_t tiles_of_lane = ceil_div(tokens, kRows), inputs = input.input.shape[2];
  const Operands op{.weight = weight.data,
                    .weight_stride = weight.stride[0],
                    .inputs = static_cast<int>(inputs),
                    .channels = static_cast<int>(channels),
                    .conv_weight = input.conv_weight.data,
                    .conv_weight_stride = input.conv_weight.stride[0],
                    .conv_bias = input.conv_bias.data,
                    .state = Rows<const float>(input.state, Direction::forward),
                    .final_state = Rows<float>(final_state, Direction::forward),
                    .valid = input.valid.data,
                    .u = Rows<bfloat16>(output.u, Direction::forward),
                    .z = Rows<bfloat16>(output.z, Direction::forward),
                    .x = Rows<bfloat16>(output.x, Direction::forward),
                    .tokens = static_cast<int>(tokens),
                    .tiles_of_lane = static_cast<int>(tiles_of_lane),
                    .tiles = static_cast<int>(lanes * tiles_of_lane),
                    .slices = static_cast<int>(ceil_div(channels, kChannels))};
  constexpr auto kLaunch = std::array{launch<1>, launch<2>, launch<3>, launch<4>};
  static_assert(kLaunch.size() == kMostSteps);
  const auto steps = static_cast<std::size_t>(ceil_div(inputs, hopper::kBlockColumns));
  kLaunch[steps - 1](op, hopper::tile_map(input.input, kRows), session);
  copy(final_state, output.state, context);
  return true;
}

}  // namespace longstrand::cuda
