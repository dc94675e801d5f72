// The scan's gradient. With the gradient of the state after every segment at hand (scan_segments_backward),
// the segments are independent. A segment's tiles, each from one checkpoint to the next, are taken last to
// first: what needs no states is prepared (BackwardTile), the states are walked forward from the checkpoint,
// all of them kept in shared memory, and then back.
//
// A thread has half of the states of two channels, its own and that of the thread which has the other half.
// Before they are added up over the channels, the gradients of B and C are then half as many values as with
// all states of one channel, and sums over states take one exchange. A token's values replace the state kept
// of it, which has been used by then. They are added up for the whole tile at once: over the threads of a
// warp, then over the warps of the block, and over the blocks by a last kernel, always in the same order.
#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_reduce.cuh"
#include "kernels/selective_scan_backward_cuda.cuh"
#include "kernels/selective_scan_cuda.hpp"
#include "kernels/transfer.hpp"

namespace longstrand::cuda {
namespace {

constexpr int kTokens = kBackwardTile_tokens;
constexpr int kKept_tokens = 4;  // the tile's last, whose decay factors stay in registers for the way back

template <class T>
struct Shared {
  typename BackwardTile<T>::Shared tile;
  BackwardSlots::Shared slots;
};

template <class T, bool kFirstGroup>
class BackwardScan {
 public:
  __device__ BackwardScan(const ScanOperands<T>& in, const BackwardResults<T>& results, Shared<T>& shared)
      : in_(in),
        out_(results),
        block_(in),
        tile_(in, results, block_, shared.tile),
        slots_(shared.slots),
        warp_(static_cast<int>(threadIdx.x) / 32),
        thread_(static_cast<int>(threadIdx.x) % 32),
        first_(thread_ / kHalfWarp * kHalf),
        states_(min(in.states - in.first_state, kScanStates)),
        d_(block_.first_channel() + threadIdx.x),
        skip_(kFirstGroup ? in.d[min(d_, in.channels - 1)] : 0.0F) {
    const std::int64_t row = (block_.segment * in.lanes + block_.lane) * in.states;
    for_each_value([&](int c, int i, int n, std::int64_t d, bool exists) {
      n += in.first_state;
      decay_[c][i] = exists ? in.decay[n * in.decay_stride + d] : 0.0F;
      g_[c][i] = exists ? results.d_state_after[(row + n) * in.channels + d] : 0.0F;
    });
  }

  __device__ void run() {
    write_padding();
    if (block_.count > 0) walk_tiles();
    store_parameter_gradients();
  }

 private:
  /// Of the pair's channel c among the warp's.
  __device__ int channel_of(int c) const { return thread_ ^ c * kHalfWarp; }

  /// Calls use(c, i, state of the group, channel, whether they exist) for all of PairValues.
  template <class Use>
  __device__ void for_each_value(Use use) const {
#pragma unroll
    for (int c = 0; c < kPair; ++c) {
      const std::int64_t d = block_.first_channel() + warp_ * 32 + channel_of(c);
#pragma unroll
      for (int i = 0; i < kHalf; ++i) use(c, i, first_ + i, d, d < in_.channels && first_ + i < states_);
    }
  }

  __device__ void write_padding() const {
#pragma unroll 1
    for (int t = block_.count; t < block_.rows; ++t) {
      if (threadIdx.x < kScanSums) sums_at(t)[threadIdx.x] = 0;
      if (d_ >= in_.channels || !kFirstGroup) continue;
      *block_.padding_at(out_.d_u, t, d_) = from_float<T>(0.0F);
      *block_.padding_at(out_.d_delta, t, d_) = from_float<T>(0.0F);
      *block_.padding_at(out_.d_z, t, d_) = from_float<T>(0.0F);
    }
  }

  /// The block's row of d_b_and_c for token t.
  __device__ float* sums_at(int t) const {
    const std::int64_t lane = block_.channel_block * in_.lanes + block_.lane;
    return out_.d_b_and_c + (lane * in_.tokens + block_.begin + t) * kScanSums;
  }

  /// A barrier a tile: what warps read of one another, B, C and sums, is there twice, by parity.
  __device__ void walk_tiles() {
    const int last = (block_.count - 1) / kTokens * kTokens;
    Checkpoint before;  // the tile
    tile_.start_operands(last);
    tile_.load_coefficients(last);
    load_checkpoint(last, before);
    int parity = 0;
    for (int first = last; first >= 0; first -= kTokens, parity ^= 1) {
      tile_.prepare();
      if (first > 0) tile_.start_operands(first - kTokens);
      tile_.publish_coefficients(parity);
      __syncthreads();
      if (first < last) {
        const int after = first + kTokens;
        slots_.store_sums(parity ^ 1, sums_at(after), block_.count - after);
      }
      PairValues h;
      unpack(before, h);
      walk(parity, h);
      if (first > 0) {  // not earlier, for want of registers
        tile_.load_coefficients(first - kTokens);
        load_checkpoint(first - kTokens, before);
      }
      __syncwarp();
      slots_.add_terms(parity);
      tile_.template store_results<kFirstGroup>(first);
    }
    __syncthreads();
    slots_.store_sums(parity ^ 1, sums_at(0), block_.count);
  }

  static constexpr bool kPacked = std::is_same_v<T, bfloat16>;

  /// A thread's part of a checkpoint as it is in memory, until the states are wanted.
  struct Checkpoint {
    float row[kPair][kPacked ? kHalf / 2 : kHalf];
    float unit[kPair];  // where packed
  };

  /// States that do not exist are copies of others: with a B and C of 0, nothing comes of them.
  __device__ void load_checkpoint(int first, Checkpoint& to) const {
    const float* const checkpoint =
        out_.checkpoints + (block_.begin + first) / kTokens * out_.checkpoint_stride +
        block_.lane * out_.checkpoint_lane_stride + (block_.first_channel() + warp_ * 32);
    const int rows = kPacked ? (states_ + 1) / 2 : states_;
#pragma unroll
    for (int c = 0; c < kPair; ++c) {
      const auto column = reinterpret_cast<const char*>(checkpoint + channel_of(c));
      const auto load = [&](int row) {
        row += static_cast<int>(scan_checkpoint_rows<T>(in_.first_state, DeviceKind::cuda));
        const auto place =
            reinterpret_cast<const float*>(column + std::int64_t{row} * out_.checkpoint_row_bytes);
        return tile_.has(channel_of(c)) ? load_early(place) : 0.0F;
      };
      constexpr int kStatesOfRow = kPacked ? 2 : 1;
#pragma unroll
      for (int i = 0; i < kHalf / kStatesOfRow; ++i) {
        to.row[c][i] = load(min(first_ / kStatesOfRow + i, rows - 1));
      }
      if constexpr (kPacked) to.unit[c] = load(rows);
    }
  }

  __device__ static void unpack(const Checkpoint& from, PairValues& h) {
#pragma unroll
    for (int c = 0; c < kPair; ++c) {
#pragma unroll
      for (int i = 0; i < kHalf; ++i) {
        if constexpr (!kPacked) {
          h[c][i] = from.row[c][i];
        } else if (i % 2 == 0) {
          unpack_states(__float_as_uint(from.row[c][i / 2]), from.unit[c], h[c][i], h[c][i + 1]);
        }
      }
    }
  }

  /// Through the tile and back, from the state h before it.
  __device__ void walk(int parity, PairValues& h) {
    PairValues factor[kKept_tokens];
    constexpr int kFirstKept = kTokens - kKept_tokens;
    Forward next = read_forward(0, parity);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      slots_.write(t, h);
      const Forward now = next;
      if (t + 1 < kTokens) next = read_forward(t + 1, parity);
      PairValues f;
      set_factor(now.dt, f);
#pragma unroll
      for (int c = 0; c < kPair; ++c) {
#pragma unroll
        for (int i = 0; i < kHalf; ++i) {
          if (t >= kFirstKept) factor[t - kFirstKept][c][i] = f[c][i];
          h[c][i] = fmaf(f[c][i], h[c][i], now.dt_u[c] * now.b[i]);
        }
      }
    }
    Back ahead = read_back(kTokens - 1, parity);
#pragma unroll
    for (int t = kTokens - 1; t >= 0; --t) {
      if (t >= kFirstKept) {
        walk_back(t, parity, ahead, factor[t - kFirstKept], h);
      } else {
        PairValues f;
        set_factor(ahead.dt, f);
        walk_back(t, parity, ahead, f, h);
      }
    }
  }

  // What a token's step begins with. It is read a token ahead, by hand: the compiler moves no load past a
  // store to shared memory.
  struct Steps {
    float dt[kPair], dt_u[kPair];
  };
  struct Forward : Steps {
    float b[kHalf];
  };
  struct Back : Steps {
    float d_y[kPair], c[kHalf];
  };
  __device__ void read_steps(int t, Steps& steps) const {
#pragma unroll
    for (int c = 0; c < kPair; ++c) {
      const float2 dt_and_dt_u = tile_.scalars().dt_and_dt_u[t][channel_of(c)];
      steps.dt[c] = dt_and_dt_u.x, steps.dt_u[c] = dt_and_dt_u.y;
    }
  }
  __device__ Forward read_forward(int t, int parity) const {
    Forward forward;
    read_steps(t, forward);
    tile_.read_coefficients(parity, 0, t, first_, forward.b);
    return forward;
  }
  __device__ Back read_back(int t, int parity) const {
    Back back;
    read_steps(t, back);
#pragma unroll
    for (int c = 0; c < kPair; ++c) back.d_y[c] = tile_.scalars().d_y[t][channel_of(c)];
    tile_.read_coefficients(parity, 1, t, first_, back.c);
    return back;
  }

  __device__ void set_factor(const float (&dt)[kPair], PairValues& factor) const {
#pragma unroll
    for (int c = 0; c < kPair; ++c) {
#pragma unroll
      for (int i = 0; i < kHalf; ++i) factor[c][i] = exp2_approx(dt[c] * decay_[c][i]);
    }
  }

  /// Of sums over the thread's states for both channels, the own channel's over all states.
  __device__ static float exchange(const float (&of_pair)[kPair]) {
    return of_pair[0] + __shfl_xor_sync(~0U, of_pair[1], kHalfWarp);
  }

  /// Token t, of state h; g_ goes from the gradient of h, but for what this token adds, to that of the state
  /// before, which h becomes. `ahead` is this token's and becomes that of the one before.
  __device__ void walk_back(int t, int parity, Back& ahead, const PairValues& factor, PairValues& h) {
    const Back now = ahead;
    PairValues before, d_b_and_c;
    float b[kHalf];
    slots_.read(t, before);
    tile_.read_coefficients(parity, 0, t, first_, b);
    BackwardScalars& scalars = tile_.scalars();
    const float u = scalars.own[t][thread_].x, slope = scalars.own[t][thread_].y;
    const float d_z_of_y = scalars.own_z[t][thread_];
    float y[kPair] = {}, d_dt_u[kPair] = {}, d_dt_decay[kPair] = {};
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
#pragma unroll
      for (int c = 0; c < kPair; ++c) {
        y[c] = fmaf(now.c[i], h[c][i], y[c]);
        g_[c][i] = fmaf(now.d_y[c], now.c[i], g_[c][i]);
      }
      d_b_and_c[0][i] = fmaf(g_[0][i], now.dt_u[0], g_[1][i] * now.dt_u[1]);
      d_b_and_c[1][i] = fmaf(h[0][i], now.d_y[0], h[1][i] * now.d_y[1]);
    }
    if (t > 0) ahead = read_back(t - 1, parity);
    slots_.write(t, d_b_and_c);
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
#pragma unroll
      for (int c = 0; c < kPair; ++c) {
        d_dt_u[c] = fmaf(g_[c][i], b[i], d_dt_u[c]);
        g_[c][i] *= factor[c][i];
        const float of_exponent = g_[c][i] * before[c][i];
        d_decay_[c][i] = fmaf(of_exponent, now.dt[c], d_decay_[c][i]);
        d_dt_decay[c] = fmaf(of_exponent, decay_[c][i], d_dt_decay[c]);
        h[c][i] = before[c][i];
      }
    }
    const float of_dt_u = exchange(d_dt_u);
    const float d_delta = (of_dt_u * u + kLn2 * exchange(d_dt_decay)) * slope;
    d_delta_bias_ += d_delta;
    if (kFirstGroup) d_d_ = fmaf(now.d_y[0], u, d_d_);
    scalars.own[t][thread_] = {of_dt_u * now.dt[0] + skip_ * now.d_y[0], d_delta};
    scalars.own_z[t][thread_] = (exchange(y) + skip_ * u) * d_z_of_y;
  }

  __device__ void store_parameter_gradients() const {
    const std::int64_t row = (block_.segment * in_.lanes + block_.lane) * in_.channels;
    for_each_value([&](int c, int i, int n, std::int64_t d, bool exists) {
      if (exists) out_.d_a_log[(row + d) * states_ + n] = d_decay_[c][i] * decay_[c][i] * kLn2;  // A dL/dA
    });
    if (d_ >= in_.channels) return;
    out_.d_d[row + d_] = d_d_;
    out_.d_delta_bias[row + d_] = d_delta_bias_;
  }

  const ScanOperands<T>& in_;
  const BackwardResults<T>& out_;
  const ScanBlock block_;
  BackwardTile<T> tile_;
  const BackwardSlots slots_;
  const int warp_, thread_;  // of the block, of the warp
  const int first_;          // state of the group that the thread has
  const int states_;
  const std::int64_t d_;  // the own channel
  const float skip_;
  PairValues decay_;
  PairValues g_;  // gradient of the state
  PairValues d_decay_ = {};
  float d_d_ = 0, d_delta_bias_ = 0;
};

template <class T, bool kFirstGroup>
__global__ void __launch_bounds__(kScanThreads, 2)
    backward_scan(const __grid_constant__ ScanOperands<T> in,
                  const __grid_constant__ BackwardResults<T> results) {
  extern __shared__ __align__(16) unsigned char memory[];
  wait_for_turn();
  BackwardScan<T, kFirstGroup>(in, results, *reinterpret_cast<Shared<T>*>(memory)).run();
}

/// d_b and d_c, the group's columns, from the sums of the channel blocks. A thread takes a quad of a token.
template <class T>
__global__ void store_d_b_and_c(const __grid_constant__ ScanOperands<T> in, const float* of_blocks,
                                std::int64_t channel_blocks, const __grid_constant__ Rows<T> d_b,
                                const __grid_constant__ Rows<T> d_c) {
  wait_for_turn();
  constexpr int kQuadsOfToken = kScanSums / 4;
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const std::int64_t position = i / kQuadsOfToken;
  const int column = static_cast<int>(i % kQuadsOfToken) * 4;
  if (position >= in.tokens) return;
  const Rows<T>& to = column < kScanStates ? d_b : d_c;
  for (std::int64_t lane = blockIdx.y; lane < in.lanes; lane += gridDim.y) {
    float4 sum = {};
#pragma unroll 4
    for (std::int64_t block = 0; block < channel_blocks; ++block) {
      const float4 value = *reinterpret_cast<const float4*>(
          of_blocks + ((block * in.lanes + lane) * in.tokens + position) * kScanSums + column);
      sum.x += value.x, sum.y += value.y, sum.z += value.z, sum.w += value.w;
    }
    const std::int64_t valid = in.valid[lane];
    const std::int64_t place =
        position < valid ? first_place(in.direction, valid) + position : place_of_row(in.direction, position);
    const float of_states[4] = {sum.x, sum.y, sum.z, sum.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int n = in.first_state + column % kScanStates + j;
      if (n < in.states) *to.at(lane, place, n) = from_float<T>(of_states[j]);
    }
  }
}

template <class T>
void launch_backward(const ScanOperands<T>& in, const SelectiveScanGradient<T>& gradient,
                     const SegmentStates& segments, Context& context) {
  const Arena::Scope scope(context.scratch);
  Session& session = session_of(context);
  const std::int64_t channel_blocks = ceil_div(in.channels, kScanThreads);
  const std::int64_t parts = in.segments * in.lanes, rows = in.lanes * in.tokens;
  const int states = std::min(in.states - in.first_state, kScanStates);
  const auto d_b_and_c = context.scratch.take<float, 1>({channel_blocks * rows * kScanSums});
  const auto d_a_log = context.scratch.take<float, 2>({parts, in.channels * states});
  const auto d_d = context.scratch.take<float, 2>({parts, in.channels});
  const auto d_delta_bias = context.scratch.take<float, 2>({parts, in.channels});
  const View<const float, 4>& checkpoints = gradient.checkpoints;
  const BackwardResults<T> results{
      .d_out = Rows<const T>(gradient.d_out, in.direction),
      .d_u = Rows<T>(gradient.d_u, in.direction),
      .d_delta = Rows<T>(gradient.d_delta, in.direction),
      .d_z = Rows<T>(gradient.d_z, in.direction),
      .in_packets = in.channels % kPacket == 0 && rows_hold_packets(gradient.d_u) &&
                    rows_hold_packets(gradient.d_delta) && rows_hold_packets(gradient.d_z),
      .checkpoints = checkpoints.data,
      .checkpoint_stride = checkpoints.stride[0],
      .checkpoint_lane_stride = checkpoints.stride[1],
      .checkpoint_row_bytes = static_cast<int>(checkpoints.stride[2] * sizeof(float)),
      .d_state_after = segments.state.data,
      .d_b_and_c = d_b_and_c.data,
      .d_a_log = d_a_log.data,
      .d_d = d_d.data,
      .d_delta_bias = d_delta_bias.data};
  const auto kernel = in.first_state == 0 ? backward_scan<T, true> : backward_scan<T, false>;
  allow_shared_memory(kernel, sizeof(Shared<T>), "selective scan: shared memory");
  launch_early(kernel, scan_grid(in.lanes, in.channels, in.segments), kScanThreads, sizeof(Shared<T>),
               session, "selective scan backward", in, results);
  constexpr int kThreads = 256;
  const dim3 grid(static_cast<unsigned>(ceil_div(in.tokens * kScanSums / 4, kThreads)),
                  static_cast<unsigned>(std::min<std::int64_t>(in.lanes, 65535)));
  launch_early(store_d_b_and_c<T>, grid, kThreads, 0, session, "selective scan backward: B and C", in,
               d_b_and_c.data, channel_blocks, Rows<T>(gradient.d_b, in.direction),
               Rows<T>(gradient.d_c, in.direction));
  add_row_sums({{d_a_log, gradient.d_a_log.columns(in.first_state, states)},
                {d_d, gradient.d_d},  // zeros of groups after the first
                {d_delta_bias, gradient.d_delta_bias}},
               context);
}

}  // namespace

template <class T>
void selective_scan_backward(const SelectiveScanInput<T>& input, const SelectiveScanGradient<T>& gradient,
                             Context& context) {
  if (input.u.size() == 0) return;
  const Arena::Scope scope(context.scratch);
  ScanOperands<T> in(input, session_of(context));
  const Rows<const T> d_out(gradient.d_out, in.direction);
  in.aligned = in.aligned && d_out.aligned();
  const SegmentStates segments = take_segments(in, {}, context);
  scan_segments_backward(in, d_out, gradient.d_state, segments, context);
  for_each_state_group(
      in, [&](const ScanOperands<T>& group) { launch_backward(group, gradient, segments, context); });
}

template void selective_scan_backward(const SelectiveScanInput<float>&, const SelectiveScanGradient<float>&,
                                      Context&);
template void selective_scan_backward(const SelectiveScanInput<bfloat16>&,
                                      const SelectiveScanGradient<bfloat16>&, Context&);

}  // namespace longstrand::cuda
