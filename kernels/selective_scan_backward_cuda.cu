// The scan's gradient. With the gradient of the state after every segment at hand (scan_segments_backward),
// the segments are independent. A segment's tiles are taken last to first. The states of a tile are computed
// again from its checkpoint: a first pass keeps one at the start of every few tokens in shared memory, and
// those few tokens are then walked forward, their states and decay factors kept in registers, and back.
//
// Gradients of B and C are sums over channels: a warp adds up its 32 channels by way of shared memory, a
// block its warps, and a last kernel the blocks, always in the same order.
#include "kernels/cuda_column_sums.cuh"
#include "kernels/cuda_reduce.cuh"
#include "kernels/selective_scan_cuda.cuh"
#include "kernels/selective_scan_cuda.hpp"
#include "kernels/transfer.hpp"

namespace longstrand::cuda {
namespace {

constexpr int kWarps = kScanThreads / 32;
constexpr int kRun_tokens = 4;  // walked in registers
constexpr int kRuns = kScanTile_tokens / kRun_tokens;
constexpr int kSums = 2 * kScanStates;  // of dB and dC, side by side
static_assert(kSums == kColumnSums);
constexpr float kLn2 = 0.6931471805599453F;

template <class T>
struct BackwardResults {
  Rows<const T> d_out;
  Rows<T> d_u, d_delta, d_z;
  const float* checkpoints;
  std::int64_t checkpoint_stride, checkpoint_lane_stride, checkpoint_row_stride;
  const float* d_state_after;  // [segments, B, N, D]
  float* d_b_and_c;            // [channel blocks, B, T, kSums]  by position
  float* d_a_log;              // [segments * B, D, the group's states]
  float* d_d;                  // [segments * B, D]
  float* d_delta_bias;         // [segments * B, D]
};

template <class T>
struct Shared {
  typename TileLoader<T, 4, 2>::Shared tile;
  float4 products[kWarps][32][kSums / 4];  // of a token: by channel
  float sums[kWarps][kScanTile_tokens][kSums];
  float state[kRuns][kScanStates][kScanThreads];  // before every run of the tile
};

template <class T, bool kFirstGroup>
class BackwardScan {
 public:
  __device__ BackwardScan(const ScanOperands<T>& in, const BackwardResults<T>& results, Shared<T>& shared)
      : in_(in),
        out_(results),
        shared_(shared),
        block_(in),
        loader_(shared.tile, block_.first_channel(), in.channels, in.aligned),
        d_(block_.first_channel() + threadIdx.x),
        exists_(d_ < in.channels),
        column_(exists_ ? d_ : in.channels - 1),
        row_(block_.segment * in.lanes + block_.lane),
        states_(min(in.states - in.first_state, kScanStates)),
        bias_(in.delta_bias[column_]),
        skip_(kFirstGroup ? in.d[column_] : 0.0F) {
    read_decay(in, column_, decay_);
#pragma unroll
    for (int n = 0; n < kScanStates; ++n) {
      g_[n] = exists_ && n < states_
                  ? out_.d_state_after[(row_ * in_.states + in_.first_state + n) * in_.channels + d_]
                  : 0.0F;
    }
    set_operand(kDelta, in.delta);
    set_operand(kU, in.u);
    set_operand(kZ, in.z);
    set_operand(kDOut, results.d_out);
    set_coefficient(0, in.b);
    set_coefficient(1, in.c);
    const int last = max(block_.count - 1, 0);
    d_u_ = block_.at(out_.d_u, last, column_);
    d_delta_ = block_.at(out_.d_delta, last, column_);
    d_z_ = block_.at(out_.d_z, last, column_);
  }

  __device__ void run() {
    write_padding();
    const int last = (block_.count - 1) / kScanTile_tokens * kScanTile_tokens;
    int parity = 0;
    if (block_.count > 0) loader_.start(last, block_.count - last, parity);
    for (int first = last; first >= 0 && block_.count > 0; first -= kScanTile_tokens, parity ^= 1) {
      float h[kScanStates];
      load_checkpoint(first, h);  // arrives meanwhile
      loader_.finish();
      if (first > 0) loader_.start(first - kScanTile_tokens, kScanTile_tokens, parity ^ 1);
      const int tokens = min(block_.count - first, kScanTile_tokens);
      keep_states(tokens, parity, h);
      for (int run = (tokens - 1) / kRun_tokens; run >= 0; --run) {
        const int of_run = min(tokens - run * kRun_tokens, kRun_tokens);
        if (of_run == kRun_tokens) {
          walk_run<true>(run, of_run, parity);
        } else {
          walk_run<false>(run, of_run, parity);
        }
      }
      __syncthreads();
      store_sums(first, tokens);
    }
    store_parameter_gradients();
  }

 private:
  enum { kDelta, kU, kZ, kDOut };  // the loader's operands

  __device__ void set_operand(int i, const Rows<const T>& x) {
    loader_.set_operand(i, block_.at(x, 0, block_.first_channel()), x.place_stride);
  }
  __device__ void set_coefficient(int i, const Rows<const T>& x) {
    loader_.set_coefficient(i, block_.at(x, 0, in_.first_state), x.place_stride, states_);
  }

  __device__ void write_padding() const {
    for (int t = block_.count; t < block_.rows; ++t) {
      float* const sums = sums_of(t);
      if (threadIdx.x < kSums) sums[threadIdx.x] = 0;
      if (!exists_ || !kFirstGroup) continue;
      *block_.padding_at(out_.d_u, t, d_) = from_float<T>(0.0F);
      *block_.padding_at(out_.d_delta, t, d_) = from_float<T>(0.0F);
      *block_.padding_at(out_.d_z, t, d_) = from_float<T>(0.0F);
    }
  }

  __device__ float* sums_of(int t) const {
    return out_.d_b_and_c +
           ((block_.channel_block * in_.lanes + block_.lane) * in_.tokens + block_.begin + t) * kSums;
  }

  __device__ void load_checkpoint(int first, float (&h)[kScanStates]) const {
    const float* const checkpoint =
        out_.checkpoints + (block_.begin + first) / kScanTile_tokens * out_.checkpoint_stride +
        block_.lane * out_.checkpoint_lane_stride + in_.first_state * out_.checkpoint_row_stride + column_;
#pragma unroll
    for (int n = 0; n < kScanStates; ++n) {
      h[n] = exists_ && n < states_ ? load_early(checkpoint + n * out_.checkpoint_row_stride) : 0.0F;
    }
  }

  /// The state before every run of the tile, the first of which is h, into shared memory, each thread its
  /// own.
  __device__ void keep_states(int tokens, int parity, float (&h)[kScanStates]) {
    const int last_run = (tokens - 1) / kRun_tokens;
#pragma unroll 1
    for (int run = 0;; ++run) {
#pragma unroll
      for (int n = 0; n < kScanStates; ++n) shared_.state[run][n][threadIdx.x] = h[n];
      if (run == last_run) return;
#pragma unroll
      for (int j = 0; j < kRun_tokens; ++j) {
        const int t = run * kRun_tokens + j;
        const float dt = softplus(loader_.operand(kDelta, t, parity) + bias_);
        const float dt_u = dt * loader_.operand(kU, t, parity);
        float b[kScanStates];
        loader_.read_coefficients(0, t, b);
#pragma unroll
        for (int n = 0; n < kScanStates; ++n) h[n] = fmaf(exp2_approx(dt * decay_[n]), h[n], dt_u * b[n]);
      }
    }
  }

  template <bool kWhole>
  __device__ void walk_run(int run, int tokens, int parity) {
    float before[kRun_tokens][kScanStates], factor[kRun_tokens][kScanStates];
    float x[kRun_tokens], dt[kRun_tokens], u[kRun_tokens], h[kScanStates];
#pragma unroll
    for (int n = 0; n < kScanStates; ++n) h[n] = shared_.state[run][n][threadIdx.x];
#pragma unroll
    for (int j = 0; j < kRun_tokens; ++j) {
      if (!kWhole && j >= tokens) break;
      const int t = run * kRun_tokens + j;
      x[j] = loader_.operand(kDelta, t, parity) + bias_;
      dt[j] = softplus(x[j]);
      u[j] = loader_.operand(kU, t, parity);
      const float dt_u = dt[j] * u[j];
      float b[kScanStates];
      loader_.read_coefficients(0, t, b);
#pragma unroll
      for (int n = 0; n < kScanStates; ++n) {
        before[j][n] = h[n];
        factor[j][n] = exp2_approx(dt[j] * decay_[n]);
        h[n] = fmaf(factor[j][n], h[n], dt_u * b[n]);
      }
    }
#pragma unroll
    for (int j = kRun_tokens - 1; j >= 0; --j) {
      if (!kWhole && j >= tokens) continue;
      walk_back(run * kRun_tokens + j, parity, x[j], dt[j], u[j], before[j], factor[j], h);
#pragma unroll
      for (int n = 0; n < kScanStates; ++n) h[n] = before[j][n];
    }
  }

  /// Token t, whose state is h; g_ goes from the gradient of h, but for what this token adds, to that of
  /// `before`.
  __device__ void walk_back(int t, int parity, float x, float dt, float u, const float (&before)[kScanStates],
                            const float (&factor)[kScanStates], const float (&h)[kScanStates]) {
    const float z = loader_.operand(kZ, t, parity), d_out = loader_.operand(kDOut, t, parity);
    const float gate = sigmoid(z);
    const float d_y = d_out * z * gate;
    const float dt_u = dt * u;
    const ColumnSums columns(shared_.products[threadIdx.x / 32]);
    float y[2] = {skip_ * u, 0}, d_dt_u[2] = {}, d_dt_decay[2] = {};  // two sums each: shorter chains
    float c[kScanStates];
    loader_.read_coefficients(1, t, c);
#pragma unroll
    for (int n = 0; n < kScanStates; ++n) {
      y[n % 2] = fmaf(c[n], h[n], y[n % 2]);
      g_[n] = fmaf(d_y, c[n], g_[n]);
    }
#pragma unroll
    for (int q = 0; q < kScanStates / 4; ++q) {
      const float *const g = g_ + 4 * q, *const s = h + 4 * q;
      columns.put(q, {g[0] * dt_u, g[1] * dt_u, g[2] * dt_u, g[3] * dt_u});
      columns.put(q + kScanStates / 4, {s[0] * d_y, s[1] * d_y, s[2] * d_y, s[3] * d_y});
    }
    float b[kScanStates];
    loader_.read_coefficients(0, t, b);
#pragma unroll
    for (int n = 0; n < kScanStates; ++n) {
      d_dt_u[n % 2] = fmaf(g_[n], b[n], d_dt_u[n % 2]);
      g_[n] *= factor[n];
      const float of_exponent = g_[n] * before[n];
      d_decay_[n] = fmaf(of_exponent, dt, d_decay_[n]);
      d_dt_decay[n % 2] = fmaf(of_exponent, decay_[n], d_dt_decay[n % 2]);
    }
    shared_.sums[threadIdx.x / 32][t][columns.column_of()] = columns.sum();
    const float of_dt_u = d_dt_u[0] + d_dt_u[1];
    const float d_x = (of_dt_u * u + kLn2 * (d_dt_decay[0] + d_dt_decay[1])) * sigmoid(x);
    d_delta_bias_ += d_x;
    if (kFirstGroup) d_d_ = fmaf(d_y, u, d_d_);
    if (exists_) {
      write(d_u_, of_dt_u * dt + skip_ * d_y);
      write(d_delta_, d_x);
      write(d_z_, d_out * (y[0] + y[1]) * gate * (1 + z * (1 - gate)));
    }
    d_u_ -= out_.d_u.place_stride, d_delta_ -= out_.d_delta.place_stride, d_z_ -= out_.d_z.place_stride;
  }

  __device__ static void write(T* place, float value) {
    *place = from_float<T>(kFirstGroup ? value : to_float(*place) + value);
  }

  __device__ void store_sums(int first, int tokens) const {
    float* const to = sums_of(first);
    for (int i = static_cast<int>(threadIdx.x); i < tokens * kSums; i += kScanThreads) {
      float sum = 0;
#pragma unroll
      for (int warp = 0; warp < kWarps; ++warp) sum += (&shared_.sums[warp][0][0])[i];
      to[i] = sum;
    }
  }

  __device__ void store_parameter_gradients() const {
    if (!exists_) return;
    const std::int64_t place = row_ * in_.channels + d_;
#pragma unroll
    for (int n = 0; n < kScanStates; ++n) {
      if (n < states_) out_.d_a_log[place * states_ + n] = d_decay_[n] * decay_[n] * kLn2;  // A dL/dA
    }
    out_.d_d[place] = d_d_;
    out_.d_delta_bias[place] = d_delta_bias_;
  }

  const ScanOperands<T>& in_;
  const BackwardResults<T>& out_;
  Shared<T>& shared_;
  const ScanBlock block_;
  TileLoader<T, 4, 2> loader_;
  const std::int64_t d_;
  const bool exists_;
  const std::int64_t column_, row_;
  const int states_;
  const float bias_, skip_;
  float decay_[kScanStates];
  float g_[kScanStates];  // gradient of the state
  float d_decay_[kScanStates] = {};
  float d_d_ = 0, d_delta_bias_ = 0;
  T *d_u_, *d_delta_, *d_z_;  // of the token under way; they are walked last to first
};

template <class T, bool kFirstGroup>
__global__ void __launch_bounds__(kScanThreads, 2)
    backward_scan(const __grid_constant__ ScanOperands<T> in,
                  const __grid_constant__ BackwardResults<T> results) {
  extern __shared__ __align__(16) unsigned char memory[];
  BackwardScan<T, kFirstGroup>(in, results, *reinterpret_cast<Shared<T>*>(memory)).run();
}

/// d_b and d_c, the group's columns, from the sums of the channel blocks. A thread takes a quad of a token.
template <class T>
__global__ void store_d_b_and_c(const __grid_constant__ ScanOperands<T> in, const float* of_blocks,
                                std::int64_t channel_blocks, const __grid_constant__ Rows<T> d_b,
                                const __grid_constant__ Rows<T> d_c) {
  constexpr int kQuadsOfToken = kSums / 4;
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
          of_blocks + ((block * in.lanes + lane) * in.tokens + position) * kSums + column);
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
  const auto d_b_and_c = context.scratch.take<float, 1>({channel_blocks * rows * kSums});
  const auto d_a_log = context.scratch.take<float, 2>({parts, in.channels * states});
  const auto d_d = context.scratch.take<float, 2>({parts, in.channels});
  const auto d_delta_bias = context.scratch.take<float, 2>({parts, in.channels});
  const View<const float, 4>& checkpoints = gradient.checkpoints;
  const BackwardResults<T> results{.d_out = Rows<const T>(gradient.d_out, in.direction),
                                   .d_u = Rows<T>(gradient.d_u, in.direction),
                                   .d_delta = Rows<T>(gradient.d_delta, in.direction),
                                   .d_z = Rows<T>(gradient.d_z, in.direction),
                                   .checkpoints = checkpoints.data,
                                   .checkpoint_stride = checkpoints.stride[0],
                                   .checkpoint_lane_stride = checkpoints.stride[1],
                                   .checkpoint_row_stride = checkpoints.stride[2],
                                   .d_state_after = segments.state.data,
                                   .d_b_and_c = d_b_and_c.data,
                                   .d_a_log = d_a_log.data,
                                   .d_d = d_d.data,
                                   .d_delta_bias = d_delta_bias.data};
  const auto kernel = in.first_state == 0 ? backward_scan<T, true> : backward_scan<T, false>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared<T>)),
        "selective scan: shared memory");
  kernel<<<scan_grid(in.lanes, in.channels, in.segments), kScanThreads, sizeof(Shared<T>), session.stream>>>(
      in, results);
  check_launch("selective scan backward");
  constexpr int kThreads = 256;
  const dim3 grid(static_cast<unsigned>(ceil_div(in.tokens * kSums / 4, kThreads)),
                  static_cast<unsigned>(std::min<std::int64_t>(in.lanes, 65535)));
  store_d_b_and_c<<<grid, kThreads, 0, session.stream>>>(in, d_b_and_c.data, channel_blocks,
                                                         Rows<T>(gradient.d_b, in.direction),
                                                         Rows<T>(gradient.d_c, in.direction));
  check_launch("selective scan backward: B and C");
  add_row_sums(View<const float, 2>(d_a_log), gradient.d_a_log.columns(in.first_state, states), context);
  if (in.first_state == 0) add_row_sums(d_d, gradient.d_d, context);
  add_row_sums(d_delta_bias, gradient.d_delta_bias, context);
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
  const SegmentStates segments = take_segments(in, context);
  scan_segments_backward(in, d_out, gradient.d_state, segments, context);
  for_each_state_group(
      in, [&](const ScanOperands<T>& group) { launch_backward(group, gradient, segments, context); });
}

template void selective_scan_backward(const SelectiveScanInput<float>&, const SelectiveScanGradient<float>&,
                                      Context&);
template void selective_scan_backward(const SelectiveScanInput<bfloat16>&,
                                      const SelectiveScanGradient<bfloat16>&, Context&);

}  // namespace longstrand::cuda
