#include "kernels/selective_scan_cuda.cuh"
#include "kernels/selective_scan_cuda.hpp"
#include "kernels/transfer.hpp"

namespace longstrand::cuda {
namespace {

/// How many of 16 exponentials the multipliers take: what balances the two units in this kernel.
constexpr int kOnMultipliers = 2;

struct ForwardResults {
  const float* state_before;  // [segments, B, N, D]
  float* checkpoints;         // [count, B, N, D] or null; strides follow
  std::int64_t checkpoint_stride, checkpoint_lane_stride, checkpoint_row_stride;
};

/// Every segment from the state before it.
template <class T>
__global__ void __launch_bounds__(kScanThreads, 5)
    forward_scan(const __grid_constant__ ScanOperands<T> in, Rows<T> out, const ForwardResults results) {
  __shared__ alignas(16) ScanTile b, c;
  const ScanBlock block(in.channels, in.segments);
  const std::int64_t d = block.channel_block * kScanThreads + threadIdx.x;
  const bool exists = d < in.channels;
  const std::int64_t column = exists ? d : 0;
  const float bias = in.delta_bias[column], skip = in.d[column];
  const bool first_group = in.first_state == 0;
  const std::int64_t row = block.segment * in.lanes + block.lane;
  float decay[kScanStates], h[kScanStates];
  read_decay(in, column, decay);
#pragma unroll
  for (int n = 0; n < kScanStates; ++n) {
    const int state = in.first_state + n;
    h[n] = state < in.states ? results.state_before[(row * in.states + state) * in.channels + column] : 0.0F;
  }
  const std::int64_t begin = block.segment * in.segment_tokens;
  const std::int64_t end = min(begin + in.segment_tokens, in.tokens);
  const std::int64_t valid = in.valid[block.lane];
  for (std::int64_t t0 = begin; t0 < end; t0 += kScanTile_tokens) {
    const int count = tokens_before(valid, t0, kScanTile_tokens);
    __syncthreads();
    load_tile(b, in.b, block.lane, t0, count, in.first_state, in.states);
    load_tile(c, in.c, block.lane, t0, count, in.first_state, in.states);
    __syncthreads();
    if (!exists) continue;
    if (results.checkpoints != nullptr && t0 % kScanCheckpoint_tokens == 0) {
      float* const checkpoint = results.checkpoints +
                                t0 / kScanCheckpoint_tokens * results.checkpoint_stride +
                                block.lane * results.checkpoint_lane_stride + d;
#pragma unroll
      for (int n = 0; n < kScanStates; ++n) {
        const int state = in.first_state + n;
        if (state < in.states) checkpoint[state * results.checkpoint_row_stride] = h[n];
      }
    }
    const T* const u_rows = in.u.row(block.lane, t0) + d;
    const T* const delta_rows = in.delta.row(block.lane, t0) + d;
    const T* const z_rows = in.z.row(block.lane, t0) + d;
    T* const out_rows = out.row(block.lane, t0) + d;
    const auto step = [&](int t) {
      const float u = load(u_rows + t * in.u.row_stride);
      const float z = load(z_rows + t * in.z.row_stride);
      const float dt = softplus(load(delta_rows + t * in.delta.row_stride) + bias);
      const float dt_u = dt * u;
      float y[4] = {first_group ? skip * u : 0.0F, 0, 0, 0};  // four sums: shorter chains
      float b_row[kScanStates], c_row[kScanStates];
      read_row(b[t], b_row);
      read_row(c[t], c_row);
#pragma unroll
      for (int n = 0; n < kScanStates; ++n) {
        h[n] = fmaf(decay_factor<kOnMultipliers>(n, dt, decay[n]), h[n], dt_u * b_row[n]);
        y[n % 4] = fmaf(c_row[n], h[n], y[n % 4]);
      }
      T& place = out_rows[t * out.row_stride];
      const float gated = (y[0] + y[1] + (y[2] + y[3])) * z * sigmoid(z);
      place = from_float<T>(first_group ? gated : to_float(place) + gated);
    };
    if (count == kScanTile_tokens) {
#pragma unroll 4
      for (int t = 0; t < kScanTile_tokens; ++t) step(t);
    } else {
      for (int t = 0; t < count; ++t) step(t);
      const int rows = tokens_before(end, t0, kScanTile_tokens);
      for (int t = count; t < rows; ++t) out_rows[t * out.row_stride] = from_float<T>(0.0F);
    }
  }
}

}  // namespace

template <class T>
void selective_scan_forward(const SelectiveScanInput<T>& input, const SelectiveScanOutput<T>& output,
                            Context& context) {
  if (input.u.size() == 0) {
    if (output.state.data != input.state.data) copy(input.state, output.state, context);
    return;
  }
  const Arena::Scope scope(context.scratch);
  const ScanOperands<T> in(input, session_of(context));
  const SegmentStates segments = take_segments(in, context);
  scan_segments_forward(in, input.state, segments, output.state, context);
  const View<float, 4>& checkpoints = output.checkpoints;
  const ForwardResults results{segments.state.data, checkpoints.data, checkpoints.stride[0],
                               checkpoints.stride[1], checkpoints.stride[2]};
  for_each_state_group(in, [&](const ScanOperands<T>& group) {
    forward_scan<<<scan_grid(in.lanes, in.channels, in.segments), kScanThreads, 0, stream_of(context)>>>(
        group, Rows<T>(output.out), results);
  });
  check_launch("selective scan");
}

template void selective_scan_forward(const SelectiveScanInput<float>&, const SelectiveScanOutput<float>&,
                                     Context&);
template void selective_scan_forward(const SelectiveScanInput<bfloat16>&,
                                     const SelectiveScanOutput<bfloat16>&, Context&);

}  // namespace longstrand::cuda
