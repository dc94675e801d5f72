#include <algorithm>

#include "kernels/selective_scan_cuda.cuh"
#include "kernels/selective_scan_cuda.hpp"

namespace longstrand::cuda {
namespace {

enum class Direction { forward, backward };

/// How many of 16 exponentials the multipliers take: what balances the two units in this kernel.
constexpr int kOnMultipliers = 3;

/// Forward: the state at the segment's end, from zero. Backward: the gradient of the state before the
/// segment, from a zero gradient of the state after it; d_out is its source.
template <class T, Direction kDirection>
__global__ void __launch_bounds__(kScanThreads, 6)
    local_scan(const __grid_constant__ ScanOperands<T> in, Rows<const T> d_out, float* state, float* sum_dt) {
  constexpr bool kForward = kDirection == Direction::forward;
  __shared__ alignas(16) ScanTile coefficients;
  const ScanBlock block(in.channels, in.segments);
  const std::int64_t d = block.channel_block * kScanThreads + threadIdx.x;
  const bool exists = d < in.channels;
  const std::int64_t column = exists ? d : 0;
  const float bias = in.delta_bias[column];
  float decay[kScanStates], h[kScanStates] = {};
  read_decay(in, column, decay);
  const std::int64_t begin = block.segment * in.segment_tokens;
  const std::int64_t end = min(begin + in.segment_tokens, in.valid[block.lane]);
  float total_dt = 0;
  for (std::int64_t i = 0; i < in.segment_tokens && begin + i < end; i += kScanTile_tokens) {
    const std::int64_t tiles_end = begin + ceil_div(end - begin, kScanTile_tokens) * kScanTile_tokens;
    const std::int64_t t0 = kForward ? begin + i : tiles_end - i - kScanTile_tokens;
    const int count = tokens_before(end, t0, kScanTile_tokens);
    __syncthreads();
    load_tile(coefficients, kForward ? in.b : in.c, block.lane, t0, count, in.first_state, in.states);
    __syncthreads();
    const T* const delta = in.delta.row(block.lane, t0) + column;
    const T* const u = in.u.row(block.lane, t0) + column;
    const T* const z = in.z.row(block.lane, t0) + column;
    const T* const d_out_rows = d_out.row(block.lane, t0) + column;
    const auto step = [&](int t) {
      const float dt = softplus(load(delta + t * in.delta.row_stride) + bias);
      total_dt += dt;
      float row[kScanStates];
      read_row(coefficients[t], row);
      if constexpr (kForward) {
        const float dt_u = dt * load(u + t * in.u.row_stride);
#pragma unroll
        for (int n = 0; n < kScanStates; ++n) {
          h[n] = fmaf(decay_factor<kOnMultipliers>(n, dt, decay[n]), h[n], dt_u * row[n]);
        }
      } else {
        const float gate = load(z + t * in.z.row_stride);
        const float d_y = load(d_out_rows + t * d_out.row_stride) * gate * sigmoid(gate);
#pragma unroll
        for (int n = 0; n < kScanStates; ++n) {
          h[n] = decay_factor<kOnMultipliers>(n, dt, decay[n]) * fmaf(row[n], d_y, h[n]);
        }
      }
    };
    if (count == kScanTile_tokens) {
#pragma unroll 4
      for (int t = 0; t < kScanTile_tokens; ++t) step(kForward ? t : kScanTile_tokens - 1 - t);
    } else {
      for (int t = 0; t < count; ++t) step(kForward ? t : count - 1 - t);
    }
  }
  if (!exists) return;
  const std::int64_t row = block.segment * in.lanes + block.lane;
  sum_dt[row * in.channels + d] = total_dt;
#pragma unroll
  for (int n = 0; n < kScanStates; ++n) {
    const int index = in.first_state + n;
    if (index < in.states) state[(row * in.states + index) * in.channels + d] = h[n];
  }
}

constexpr int kSlices = 32;

/// From what each segment does to a state, state' = decay state + local, to the state before each: in place
/// of `local`. A block has 32 channels of one lane and state; its slices take consecutive segments, first to
/// find what a slice does, then, knowing the state before the slice, to walk it. `reverse` counts segments
/// from the last one.
__global__ void __launch_bounds__(32 * kSlices)
    connect_segments(float* local, const float* sum_dt, const float* decay, std::int64_t decay_stride,
                     std::int64_t segments, std::int64_t lanes, int states, std::int64_t channels,
                     bool reverse, const float* initial, std::int64_t initial_lane_stride,
                     std::int64_t initial_row_stride, float* final, std::int64_t final_lane_stride,
                     std::int64_t final_row_stride) {
  __shared__ float slice_decay[kSlices][32], slice_state[kSlices][32];
  const std::int64_t channel_blocks = ceil_div(channels, 32);
  const std::int64_t d = blockIdx.x % channel_blocks * 32 + threadIdx.x;
  const std::int64_t lane = blockIdx.x / channel_blocks / states;
  const int n = static_cast<int>(blockIdx.x / channel_blocks % states);
  const int slice = static_cast<int>(threadIdx.y);
  const bool exists = d < channels;
  const std::int64_t column = exists ? d : 0;
  const float a = decay[n * decay_stride + column];
  const std::int64_t per_slice = ceil_div(segments, kSlices);
  const std::int64_t begin = slice * per_slice, end = min(begin + per_slice, segments);
  const auto row_of = [&](std::int64_t i) { return (reverse ? segments - 1 - i : i) * lanes + lane; };
  float state = 0, total_dt = 0;
#pragma unroll 4
  for (std::int64_t i = begin; i < end; ++i) {
    const float dt = sum_dt[row_of(i) * channels + column];
    state = fmaf(exp2_approx(dt * a), state, local[(row_of(i) * states + n) * channels + column]);
    total_dt += dt;
  }
  slice_decay[slice][threadIdx.x] = exp2_approx(total_dt * a);
  slice_state[slice][threadIdx.x] = state;
  __syncthreads();
  state = initial[lane * initial_lane_stride + n * initial_row_stride + column];
  for (int s = 0; s < slice; ++s)
    state = fmaf(slice_decay[s][threadIdx.x], state, slice_state[s][threadIdx.x]);
  __syncthreads();  // every thread has read `initial`, which may be `final`
  if (!exists) return;
#pragma unroll 4
  for (std::int64_t i = begin; i < end; ++i) {
    float* const place = local + (row_of(i) * states + n) * channels + d;
    const float of_segment = *place;
    *place = state;
    state = fmaf(exp2_approx(sum_dt[row_of(i) * channels + d] * a), state, of_segment);
  }
  const bool last_slice = begin < segments ? end == segments : false;
  if (last_slice) final[lane * final_lane_stride + n * final_row_stride + d] = state;
}

template <class T>
void connect(const ScanOperands<T>& in, const SegmentStates& segments, bool reverse,
             View<const float, 3> initial, View<float, 3> final, Context& context) {
  const auto blocks = static_cast<unsigned>(ceil_div(in.channels, 32) * in.states * in.lanes);
  connect_segments<<<blocks, dim3(32, kSlices), 0, stream_of(context)>>>(
      segments.state.data, segments.sum_dt.data, in.decay, in.decay_stride, in.segments, in.lanes, in.states,
      in.channels, reverse, initial.data, initial.stride[0], initial.stride[1], final.data, final.stride[0],
      final.stride[1]);
  check_launch("selective scan: connect the segments");
}

template <class T, Direction kDirection>
void scan_locally(const ScanOperands<T>& in, Rows<const T> d_out, const SegmentStates& segments,
                  Context& context) {
  for_each_state_group(in, [&](const ScanOperands<T>& group) {
    local_scan<T, kDirection>
        <<<scan_grid(in.lanes, in.channels, in.segments), kScanThreads, 0, stream_of(context)>>>(
            group, d_out, segments.state.data, segments.sum_dt.data);
  });
  check_launch("selective scan: segments");
}

/// Segments enough to keep the GPU busy, each of whole tiles and checkpoints.
std::int64_t segment_length(std::int64_t lanes, std::int64_t tokens, std::int64_t channels,
                            int multiprocessors) {
  constexpr std::int64_t kBlocksOfMultiprocessor = 24;  // some four times what is resident: an even end
  const std::int64_t blocks_of_segment = lanes * ceil_div(channels, kScanThreads);
  const std::int64_t wanted =
      std::max<std::int64_t>(1, multiprocessors * kBlocksOfMultiprocessor / blocks_of_segment);
  const std::int64_t length = std::max<std::int64_t>(ceil_div(tokens, wanted), 2 * kScanCheckpoint_tokens);
  return ceil_div(length, kScanCheckpoint_tokens) * kScanCheckpoint_tokens;
}

__global__ void prepare_decay_kernel(const float* a_log, std::int64_t a_log_stride, float* decay,
                                     std::int64_t decay_stride, std::int64_t channels, int states) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= channels * states) return;
  const std::int64_t n = i / channels, d = i % channels;
  constexpr double kLog2E_double = 1.4426950408889634074;
  decay[n * decay_stride + d] =
      static_cast<float>(-exp(static_cast<double>(a_log[d * a_log_stride + n])) * kLog2E_double);
}

}  // namespace

template <class T>
ScanOperands<T>::ScanOperands(const SelectiveScanInput<T>& input, const Session& session)
    : u(input.u),
      delta(input.delta),
      b(input.b),
      c(input.c),
      z(input.z),
      decay(input.decay.data),
      decay_stride(input.decay.stride[0]),
      d(input.d.data),
      delta_bias(input.delta_bias.data),
      valid(input.valid.data),
      lanes(input.u.shape[0]),
      tokens(input.u.shape[1]),
      channels(input.u.shape[2]),
      states(static_cast<int>(input.decay.shape[0])),
      segment_tokens(segment_length(lanes, tokens, channels, session.multiprocessors)),
      segments(ceil_div(tokens, segment_tokens)) {}

template <class T>
SegmentStates take_segments(const ScanOperands<T>& in, Context& context) {
  return {context.scratch.take<float, 4>({in.segments, in.lanes, in.states, in.channels}),
          context.scratch.take<float, 3>({in.segments, in.lanes, in.channels})};
}

template <class T>
void scan_segments_forward(const ScanOperands<T>& in, View<const float, 3> initial,
                           const SegmentStates& segments, View<float, 3> final, Context& context) {
  scan_locally<T, Direction::forward>(in, {}, segments, context);
  connect(in, segments, /*reverse=*/false, initial, final, context);
}

template <class T>
void scan_segments_backward(const ScanOperands<T>& in, Rows<const T> d_out, View<float, 3> d_state,
                            const SegmentStates& segments, Context& context) {
  scan_locally<T, Direction::backward>(in, d_out, segments, context);
  connect(in, segments, /*reverse=*/true, d_state, d_state, context);
}

void prepare_decay(View<const float, 2> a_log, View<float, 2> decay, Context& context) {
  const auto [channels, states] = a_log.shape;
  constexpr int kThreads = 256;
  prepare_decay_kernel<<<static_cast<unsigned>(ceil_div(channels * states, kThreads)), kThreads, 0,
                         stream_of(context)>>>(a_log.data, a_log.stride[0], decay.data, decay.stride[0],
                                               channels, static_cast<int>(states));
  check_launch("prepare decay");
}

template struct ScanOperands<float>;
template struct ScanOperands<bfloat16>;
template SegmentStates take_segments(const ScanOperands<float>&, Context&);
template SegmentStates take_segments(const ScanOperands<bfloat16>&, Context&);
template void scan_segments_forward(const ScanOperands<float>&, View<const float, 3>, const SegmentStates&,
                                    View<float, 3>, Context&);
template void scan_segments_forward(const ScanOperands<bfloat16>&, View<const float, 3>, const SegmentStates&,
                                    View<float, 3>, Context&);
template void scan_segments_backward(const ScanOperands<float>&, Rows<const float>, View<float, 3>,
                                     const SegmentStates&, Context&);
template void scan_segments_backward(const ScanOperands<bfloat16>&, Rows<const bfloat16>, View<float, 3>,
                                     const SegmentStates&, Context&);

}  // namespace longstrand::cuda
