// A block has the weight of 128 channels of x and of z in shared memory and walks along a run of tokens, 64
// at a time. One warp copies the input in; two warpgroups take the tiles in turn, so that one of them
// multiplies while the other writes z, and x to shared memory, where it convolves: a tile's history is what
// the other warpgroup left there of the tile before.
#include <algorithm>
#include <array>
#include <limits>

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

/// s sigmoid(s) for s = -x / log2(e).
__device__ inline float silu_of_scaled(float x) {
  return x * reciprocal_approx(fmaf(-kLog2E, exp2_approx(x), -kLog2E));
}

__device__ inline void unpack(uint4 piece, float (&to)[kPiece]) {
  const std::uint32_t pairs[] = {piece.x, piece.y, piece.z, piece.w};
#pragma unroll
  for (int i = 0; i < kPiece; ++i) {
    to[i] = __uint_as_float(i % 2 == 0 ? pairs[i / 2] << 16 : pairs[i / 2] & 0xFFFF0000U);
  }
}

/// A warpgroup that multiplies.
template <int kSteps>
class Group {
 public:
  __device__ Group(const Operands& op, const Walk& walk, Shared& shared)
      : op_(op),
        walk_(walk),
        shared_(shared),
        group_(static_cast<int>(threadIdx.x) / kWarpgroup),
        thread_(static_cast<int>(threadIdx.x) % kWarpgroup),
        channel_(walk.channel + thread_ % kPieces * kPiece),
        filter_(op, channel_) {}

  __device__ void run() const {
    const bool all_channels = walk_.channel + kChannels <= op_.channels;
    for (Tile<kSteps> tile(op_, walk_, group_); tile.number < walk_.tiles; tile.advance(op_, kGroups)) {
      // Tokens from here on that are no padding. Far more come to the same.
      const int valid = static_cast<int>(min(op_.valid[tile.lane] - tile.row, std::int64_t{kRows + 1}));
      float sums[kChannels];
      multiply(tile, sums);
      write_x(tile.number, sums);
      if (valid >= kRows && all_channels && tile.number >= walk_.history) {
        write_z<true>(tile, sums);
        finish<true>(tile, valid);
      } else {
        if (tile.number >= walk_.history) write_z<false>(tile, sums);
        finish<false>(tile, valid);
      }
    }
  }

 private:
  __device__ int next() const { return (group_ + 1) % kGroups; }
  __device__ int previous() const { return (group_ + kGroups - 1) % kGroups; }
  __device__ int warp() const { return thread_ / 32; }

  /// sums[0, 64) are of x, [64, 128) of z.
  __device__ void multiply(const Tile<kSteps>& tile, float (&sums)[kChannels]) const {
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
      release(tile.slot(step - 1));
    }
    if (tile.number + 1 < walk_.tiles) hopper::arrive_threads(kTurn + next(), 2 * kWarpgroup);
    hopper::wait_for_products<0>(sums);
    release(tile.slot(kSteps - 1));
  }
  __device__ void release(int slot) const {
    if (thread_ % 32 == 0) shared_.emptied[slot].arrive();
  }

  /// The eight neighbouring sums of a row and 32 columns.
  __device__ static uint4 rounded(const float* sums) {
    return {round_pair(sums[0], sums[1]), round_pair(sums[4], sums[5]), round_pair(sums[8], sums[9]),
            round_pair(sums[12], sums[13])};
  }
  __device__ int row_of_sums() const { return warp() * 16 + thread_ % 32 / 4; }

  /// kWhole, here and below: all rows and channels are there.
  template <bool kWhole>
  __device__ void write_z(const Tile<kSteps>& tile, const float (&sums)[kChannels]) const {
    const int channel = walk_.channel + thread_ % 4 * kPiece;
    bfloat16* const to = op_.z.at(tile.lane, tile.row + row_of_sums(), channel);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (!kWhole && tile.row + row_of_sums() + half * 8 >= op_.tokens) return;
#pragma unroll
      for (int i = 0; i < kChannels / 32; ++i) {
        if (!kWhole && channel + i * 32 >= op_.channels) continue;
        *reinterpret_cast<uint4*>(to + half * 8 * op_.z.place_stride + i * 32) =
            rounded(sums + kChannels / 2 + i * 16 + half * 2);
      }
    }
  }

  /// A piece of x in shared memory; those of odd rows are exchanged, so that warps use all banks.
  __device__ uint4* x_at(int group, int row, int piece) const {
    return reinterpret_cast<uint4*>(shared_.x[group] + row * kRow_bytes + (piece ^ (row % 2 * 4)) * 16);
  }

  __device__ void write_x(int number, const float (&sums)[kChannels]) const {
    // The last rows are the next warpgroup's history. That all threads of this one have read theirs of the
    // tile before is known since its turn.
    if (number >= kGroups && warp() == 3) hopper::sync_threads(kRead + group_, 64);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < kChannels / 32; ++i) {
        *x_at(group_, row_of_sums() + half * 8, i * 4 + thread_ % 4) = rounded(sums + i * 16 + half * 2);
      }
    }
    if (number + 1 < walk_.tiles && warp() == 3) hopper::arrive_threads(kWritten + group_, 64);
    hopper::sync_threads(kOfGroup + group_, kWarpgroup);
  }

  /// A thread's rows in the convolution.
  __device__ int first_row() const { return thread_ / kPieces * kStretch; }

  template <bool kWhole>
  __device__ void finish(const Tile<kSteps>& tile, int valid) const {
    uint4 rows[kStretch];
#pragma unroll
    for (int t = 0; t < kStretch; ++t) rows[t] = *x_at(group_, first_row() + t, thread_ % kPieces);
    float window[kTaps][kPiece];  // first the x before a thread's rows, later those of a row
    if (tile.number > 0 && warp() == 0) hopper::sync_threads(kWritten + previous(), 64);
    load_history(tile, window);
    const bool overwritten = tile.number - 1 + kGroups < walk_.tiles;
    if (tile.number > 0 && overwritten && warp() == 0) hopper::arrive_threads(kRead + previous(), 64);
    if (!kWhole && (tile.number < walk_.history || channel_ >= op_.channels)) return;
    const bool ends_here = valid > 0 ? valid <= kRows : tile.row == 0;
    if (ends_here && first_row() == 0) write_final_state(tile.lane, valid, window);
    convolve<kWhole>(tile, valid, rows, window);
  }

  /// The first kTaps - 1 rows of the window.
  __device__ void load_history(const Tile<kSteps>& tile, float (*window)[kPiece]) const {
    const bool own = first_row() > 0;
    if (own || tile.row > 0) {
      const int before = own ? first_row() : kRows;
#pragma unroll
      for (int k = 0; k < kTaps - 1; ++k) {
        unpack(*x_at(own ? group_ : previous(), before - (kTaps - 1) + k, thread_ % kPieces), window[k]);
      }
    } else if (channel_ < op_.channels) {
#pragma unroll
      for (int k = 0; k < kTaps - 1; ++k) {
#pragma unroll
        for (int i = 0; i < kPiece; ++i) window[k][i] = *op_.state.at(tile.lane, k, channel_ + i);
      }
    }
  }

  /// The last x of a lane of which `valid` tokens are in this tile or, with none at all, before it.
  __device__ void write_final_state(int lane, int valid, const float (*window)[kPiece]) const {
#pragma unroll
    for (int k = 0; k < kTaps - 1; ++k) {
      const int row = valid - (kTaps - 1) + k;
      float x[kPiece];
      if (row >= 0) unpack(*x_at(group_, row, thread_ % kPieces), x);
#pragma unroll
      for (int i = 0; i < kPiece; ++i) {
        if (row < 0) x[i] = row == -3 ? window[0][i] : row == -2 ? window[1][i] : window[2][i];
        *op_.final_state.at(lane, k, channel_ + i) = x[i];
      }
    }
  }

  /// A thread's rows; those of the tile at and past `valid` are padding.
  template <bool kWhole>
  __device__ void convolve(const Tile<kSteps>& tile, int valid, const uint4 (&rows)[kStretch],
                           float (&window)[kTaps][kPiece]) const {
    bfloat16* to = op_.u.at(tile.lane, tile.row + first_row(), channel_);
#pragma unroll
    for (int t = 0; t < kStretch; ++t, to += op_.u.place_stride) {
      if (!kWhole && tile.row + first_row() + t >= op_.tokens) return;
      unpack(rows[t], window[(t + kTaps - 1) % kTaps]);
      float result[kPiece];
#pragma unroll
      for (int i = 0; i < kPiece; ++i) {
        float sum = filter_.bias[i];
#pragma unroll
        for (int k = 0; k < kTaps; ++k) sum = fmaf(filter_.weight[k][i], window[(t + k) % kTaps][i], sum);
        result[i] = kWhole || first_row() + t < valid ? silu_of_scaled(sum) : 0.0F;
      }
      *reinterpret_cast<uint4*>(to) = {round_pair(result[0], result[1]), round_pair(result[2], result[3]),
                                       round_pair(result[4], result[5]), round_pair(result[6], result[7])};
    }
  }

  const Operands& op_;
  const Walk& walk_;
  Shared& shared_;
  const int group_, thread_;
  const int channel_;  // the first of a thread's in the convolution
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
    hopper::fence_barriers();
  }
  load_weight<kSteps>(op, walk.channel, shared);
  hopper::fence_shared_writes();
  __syncthreads();
  if (threadIdx.x >= kGroups * kWarpgroup) {
    hopper::give_registers<24>();
    if (threadIdx.x == kGroups * kWarpgroup) copy_input<kSteps>(op, input, walk, shared);
  } else {
    hopper::take_registers<240>();
    Group<kSteps>(op, walk, shared).run();
  }
}

template <int kSteps>
void launch(const Operands& op, const CUtensorMap& input, Session& session) {
  allow_shared_memory(linear_conv_kernel<kSteps>, sizeof(Shared), "linear convolution: shared memory");
  const int runs = std::clamp(session.multiprocessors / op.slices, 1, op.tiles);
  const auto blocks = static_cast<unsigned>(runs * op.slices);
  linear_conv_kernel<kSteps><<<blocks, kThreads, sizeof(Shared), session.stream>>>(op, input);
  check_launch("linear convolution");
}

}  // namespace

namespace {

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
         rows_hold_packets<kPiece>(output.z) && rows_hold_packets(input.state) &&
         output.state.stride[1] == channels;
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
                    .tokens = static_cast<int>(tokens),
                    .tiles_of_lane = static_cast<int>(tiles_of_lane),
                    .tiles = static_cast<int>(lanes * tiles_of_lane),
                    .slices = static_cast<int>(ceil_div(channels, kChannels))};
  constexpr auto kLaunch = std::array{launch<1>, launch<2>, launch<3>, launch<4>};
  static_assert(kLaunch.size() == kMostSteps);
  const auto steps = static_cast<std::size_t>(ceil_div(inputs, hopper::kBlockColumns));
  kLaunch[steps - 1](op, hopper::tile_map(input.input, kRows), session);
  const auto as_rows = [&](const View<float, 3>& state) {  // one copy for all lanes
    return View<float, 2>(state.data, {lanes, (kTaps - 1) * channels}, {state.stride[0], 1}, state.device);
  };
  copy(as_rows(final_state), as_rows(output.state), context);
  return true;
}

}  // namespace longstrand::cuda
