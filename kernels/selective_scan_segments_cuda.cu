#include <algorithm>

#include "kernels/selective_scan_cuda.cuh"
#include "kernels/selective_scan_cuda.hpp"

namespace longstrand::cuda {
namespace {

enum class Direction { forward, backward };

template <class T, Direction kDirection>
using LocalLoader = TileLoader<T, kDirection == Direction::forward ? 2 : 3, 1>;

/// Forward: the state at the segment's end, from zero. Backward: the gradient of the state before the
/// segment, from a zero gradient of the state after it; d_out is its source.
template <class T, Direction kDirection>
__global__ void __launch_bounds__(kScanThreads, 6)
    local_scan(const __grid_constant__ ScanOperands<T> in, const Rows<const T> d_out, float* state,
               float* sum_dt) {
  constexpr bool kForward = kDirection == Direction::forward;
  using Loader = LocalLoader<T, kDirection>;
  extern __shared__ __align__(16) unsigned char memory[];
  const ScanBlock block(in.channels, in.segments);
  const std::int64_t first_channel = block.channel_block * kScanThreads;
  const std::int64_t d = first_channel + threadIdx.x;
  const std::int64_t column = min(d, in.channels - 1);
  const std::int64_t begin = block.segment * in.segment_tokens;
  const int count = tokens_before(in.valid[block.lane], begin, static_cast<int>(in.segment_tokens));
  const std::int64_t first = kForward ? begin : begin + max(count - 1, 0);
  Loader loader(*reinterpret_cast<typename Loader::Shared*>(memory), first_channel, in.channels, in.aligned);
  const auto operand = [&](int i, const Rows<const T>& x) {
    loader.set_operand(i, x.row(block.lane, first) + first_channel, kForward ? x.row_stride : -x.row_stride);
  };
  operand(0, in.delta);
  if constexpr (kForward) {
    operand(1, in.u);
  } else {
    operand(1, in.z);
    operand(2, d_out);
  }
  const Rows<const T>& coefficients = kForward ? in.b : in.c;
  loader.set_coefficient(0, coefficients.row(block.lane, first) + in.first_state,
                         kForward ? coefficients.row_stride : -coefficients.row_stride,
                         in.states - in.first_state);
  const float bias = in.delta_bias[column];
  float decay[kScanStates], h[kScanStates] = {};
  read_decay(in, column, decay);
  float total_dt = 0;
  const auto step = [&](int t, int parity) {
    const float dt = softplus(loader.operand(0, t, parity) + bias);
    total_dt += dt;
    float row[kScanStates];
    loader.read_coefficients(0, t, row);
    if constexpr (kForward) {
      const float dt_u = dt * loader.operand(1, t, parity);
#pragma unroll
      for (int n = 0; n < kScanStates; ++n) {
        h[n] = fmaf(exp2_approx(dt * decay[n]), h[n], dt_u * row[n]);
      }
    } else {
      const float z = loader.operand(1, t, parity);
      const float d_y = loader.operand(2, t, parity) * z * sigmoid(z);
#pragma unroll
      for (int n = 0; n < kScanStates; ++n) {
        h[n] = exp2_approx(dt * decay[n]) * fmaf(row[n], d_y, h[n]);
      }
    }
  };
  loader.start(0, min(count, kScanTile_tokens), 0);
  int parity = 0;
  for (int i = 0; i < count; i += kScanTile_tokens, parity ^= 1) {
    loader.finish();
    loader.start(i + kScanTile_tokens, min(count - i - kScanTile_tokens, kScanTile_tokens), parity ^ 1);
    if (count - i >= kScanTile_tokens) {
#pragma unroll 4
      for (int t = 0; t < kScanTile_tokens; ++t) step(t, parity);
    } else {
      for (int t = 0; t < count - i; ++t) step(t, parity);
    }
  }
  if (d >= in.channels) return;
  const std::int64_t row = block.segment * in.lanes + block.lane;
  sum_dt[row * in.channels + d] = total_dt;
#pragma unroll
  for (int n = 0; n < kScanStates; ++n) {
    const int index = in.first_state + n;
    if (index < in.states) state[(row * in.states + index) * in.channels + d] = h[n];
  }
}

constexpr int kMostSlices = 32;

/// From what each segment does to a state, state' = decay state + local, to the state before each: in place
/// of `local`. A block has 32 channels of one lane and state; its slices, of threadIdx.y, take consecutive
/// segments, first to find what a slice does, then, knowing the state before the slice, to walk it. `reverse`
/// counts segments from the last one.
__global__ void __launch_bounds__(32 * kMostSlices)
    connect_segments(float* local, const float* sum_dt, const float* decay, std::int64_t decay_stride,
                     std::int64_t segments, std::int64_t lanes, int states, std::int64_t channels,
                     bool reverse, const float* initial, std::int64_t initial_lane_stride,
                     std::int64_t initial_row_stride, float* final, std::int64_t final_lane_stride,
                     std::int64_t final_row_stride) {
  __shared__ float slice_decay[kMostSlices][32], slice_state[kMostSlices][32];
  const std::int64_t channel_blocks = ceil_div(channels, 32);
  const std::int64_t d = blockIdx.x % channel_blocks * 32 + threadIdx.x;
  const std::int64_t lane = blockIdx.x / channel_blocks / states;
  const int n = static_cast<int>(blockIdx.x / channel_blocks % states);
  const int slice = static_cast<int>(threadIdx.y);
  const bool exists = d < channels;
  const std::int64_t column = exists ? d : 0;
  const float a = decay[n * decay_stride + column];
  const std::int64_t per_slice = ceil_div(segments, blockDim.y);
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
  constexpr std::int64_t kSegmentsOfSlice = 8;  // at least: few slices start and meet sooner
  const auto blocks = static_cast<unsigned>(ceil_div(in.channels, 32) * in.states * in.lanes);
  const auto slices = static_cast<unsigned>(
      std::clamp<std::int64_t>(ceil_div(in.segments, kSegmentsOfSlice), 1, kMostSlices));
  connect_segments<<<blocks, dim3(32, slices), 0, stream_of(context)>>>(
      segments.state.data, segments.sum_dt.data, in.decay, in.decay_stride, in.segments, in.lanes, in.states,
      in.channels, reverse, initial.data, initial.stride[0], initial.stride[1], final.data, final.stride[0],
      final.stride[1]);
  check_launch("selective scan: connect the segments");
}

template <class T, Direction kDirection>
void scan_locally(const ScanOperands<T>& in, Rows<const T> d_out, const SegmentStates& segments,
                  Context& context) {
  const auto kernel = local_scan<T, kDirection>;
  constexpr std::size_t kShared_bytes = sizeof(typename LocalLoader<T, kDirection>::Shared);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared_bytes),
        "selective scan: shared memory");
  for_each_state_group(in, [&](const ScanOperands<T>& group) {
    kernel<<<scan_grid(in.lanes, in.channels, in.segments), kScanThreads, kShared_bytes,
             stream_of(context)>>>(group, d_out, segments.state.data, segments.sum_dt.data);
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
  const std::int64_t length = std::max<std::int64_t>(ceil_div(tokens, wanted), 4 * kScanTile_tokens);
  return ceil_div(length, kScanTile_tokens) * kScanTile_tokens;
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
      segments(ceil_div(tokens, segment_tokens)),
      aligned(channels % (16 / static_cast<std::int64_t>(sizeof(T))) == 0 && u.aligned() && delta.aligned() &&
              z.aligned()) {}

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
  ScanOperands<T> operands = in;
  operands.aligned = in.aligned && d_out.aligned();
  scan_locally<T, Direction::backward>(operands, d_out, segments, context);
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
