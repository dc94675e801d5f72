#include <algorithm>

#include "kernels/cuda_launch.cuh"
#include "kernels/selective_scan_cuda.cuh"
#include "kernels/selective_scan_cuda.hpp"
#include "kernels/transfer.hpp"

namespace longstrand::cuda {
namespace {

constexpr int kCheckpoint_tokens = scan_checkpoint_tokens(DeviceKind::cuda);
constexpr int kBlocksOfMultiprocessor = 4;  // more would leave too few registers

/// States [lanes, N, D] in device code.
template <class E>
struct States {
  E* data = nullptr;
  std::int64_t lane_stride = 0, state_stride = 0;
  States() = default;
  States(const View<E, 3>& states)
      : data(states.data), lane_stride(states.stride[0]), state_stride(states.stride[1]) {}
  __device__ operator States<const E>() const {
    States<const E> result;
    result.data = data, result.lane_stride = lane_stride, result.state_stride = state_stride;
    return result;
  }
  __device__ E* at(std::int64_t lane, int n, std::int64_t channel) const {
    return data + lane * lane_stride + n * state_stride + channel;
  }
};

/// A segment is walked in pieces, a block each. Were it walked by one, the warps that a scheduler prefers
/// would be through long before the others, which would be alone in the end. Blocks number themselves as they
/// start: so the piece before a block's own has started, and will hand its state on.
struct Pieces {
  int count = 1, tokens = 0;    // of a segment, of each but the last
  States<float> state;          // handed on; of lane b in segment s: s * B + b
  unsigned* started = nullptr;  // blocks; back to 0 with the last one
  unsigned* done = nullptr;     // pieces, by the block that a whole segment would have in scan_grid; likewise
};

/// The calling block's number.
__device__ inline unsigned take_number(const Pieces& pieces) {
  if (pieces.count == 1) return blockIdx.x;
  __shared__ unsigned number;
  if (threadIdx.x == 0) number = atomicInc(pieces.started, gridDim.x - 1);
  __syncthreads();
  return number;
}

/// Waits for so many pieces; all threads of the block.
__device__ inline void wait_until_done(const unsigned* done, unsigned pieces) {
  if (threadIdx.x == 0) {
    unsigned value;
    do {
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(done) : "memory");
    } while (value < pieces);
  }
  __syncthreads();
}

/// After what the block's threads have written.
__device__ inline void set_done(unsigned* done, unsigned pieces) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x != 0) return;
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(done), "r"(pieces) : "memory");
}

/// Of dt, u, z and, where it is added to, out; of B and C.
template <class T, bool kAccumulate>
using ForwardLoader = TileLoader<T, kAccumulate ? 4 : 3, 2>;

struct ForwardResults {
  States<const float> state_before;  // of lane b in segment s: s * B + b
  States<float> final_state;         // after the last segment; empty where it is known; may be state_before
  float* checkpoints;                // [count, B, rows, D], with kKeeps; strides follow
  std::int64_t checkpoint_stride, checkpoint_lane_stride, checkpoint_row_stride;
  Pieces pieces = {};
};

/// A channel's states of a group, of which so many exist, to the rows of a checkpoint.
template <class T>
__device__ inline void store_checkpoint(const float (&h)[kScanStates], int states, float* to,
                                        std::int64_t row_stride) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    float largest = 0;
#pragma unroll
    for (int n = 0; n < kScanStates; ++n) {
      asm("max.NaN.f32 %0, %0, %1;" : "+f"(largest) : "f"(fabsf(h[n])));
    }
    const float unit = packed_unit(largest), units = reciprocal_approx(unit);
#pragma unroll
    for (int n = 0; n < kScanStates; n += 2, to += row_stride) {
      if (n < states) *to = __uint_as_float(pack_states(h[n], h[n + 1], units));
      if (n < states && n + 2 >= states) to[row_stride] = unit;
    }
  } else {
#pragma unroll
    for (int n = 0; n < kScanStates; ++n) {
      if (n < states) to[n * row_stride] = h[n];
    }
  }
}

/// Every segment from the state before it. kAccumulate: `out` is added to. kKeeps: checkpoints.
template <class T, bool kAccumulate, bool kKeeps>
__global__ void __launch_bounds__(kScanThreads, kBlocksOfMultiprocessor)
    forward_scan(const __grid_constant__ ScanOperands<T> in, const Rows<T> out,
                 const __grid_constant__ ForwardResults results) {
  using Loader = ForwardLoader<T, kAccumulate>;
  extern __shared__ __align__(16) unsigned char memory[];
  wait_for_turn();
  const Pieces& pieces = results.pieces;
  const unsigned number = take_number(pieces), of_segments = gridDim.x / pieces.count;
  const unsigned piece = number / of_segments, of_segment = number % of_segments;
  ScanBlock block(in, of_segment);
  if (pieces.count > 1) block.narrow(static_cast<int>(piece) * pieces.tokens, pieces.tokens);
  const std::int64_t first_channel = block.first_channel();
  const std::int64_t d = first_channel + threadIdx.x;
  const bool exists = d < in.channels;
  const std::int64_t column = exists ? d : in.channels - 1;
  const int count = block.count;
  if (!kAccumulate && exists) {
    for (int i = count; i < block.rows; ++i) *block.padding_at(out, i, d) = from_float<T>(0.0F);
  }
  Loader loader(*reinterpret_cast<typename Loader::Shared*>(memory), first_channel, in.channels, in.aligned);
  const auto operand = [&](int i, const auto& x) {
    loader.set_operand(i, block.at(x, 0, first_channel), x.place_stride);
  };
  operand(0, in.dt);
  operand(1, in.u);
  operand(2, in.z);
  if constexpr (kAccumulate) operand(3, out);
  const int states = in.states - in.first_state;
  const auto coefficient = [&](int i, const Rows<const T>& x) {
    loader.set_coefficient(i, block.at(x, 0, in.first_state), x.place_stride, states);
  };
  coefficient(0, in.b);
  coefficient(1, in.c);
  const float skip = in.first_state == 0 ? in.d[column] : 0.0F;
  const std::int64_t row = block.segment * in.lanes + block.lane;
  float decay[kScanStates], h[kScanStates];
  read_decay(in, column, decay);
  if (piece > 0) wait_until_done(pieces.done + of_segment, piece);
  const States<const float> before = piece > 0 ? States<const float>(pieces.state) : results.state_before;
  const float* const from = before.at(row, in.first_state, d);
#pragma unroll
  for (int n = 0; n < kScanStates; ++n) {
    h[n] = exists && n < states ? __ldcg(from + n * before.state_stride) : 0.0F;
  }
  T* place = block.at(out, 0, column);
  float* checkpoint =
      results.checkpoints + block.begin / kCheckpoint_tokens * results.checkpoint_stride +
      block.lane * results.checkpoint_lane_stride +
      scan_checkpoint_rows<T>(in.first_state, DeviceKind::cuda) * results.checkpoint_row_stride + d;
  const auto step = [&](int t, int parity) {
    const float dt = loader.operand(0, t, parity), u = loader.operand(1, t, parity);
    const float z = loader.operand(2, t, parity);
    const float dt_u = dt * u;
    float y[4] = {skip * u, 0, 0, 0};  // four sums: shorter chains
    float b[kScanStates], c[kScanStates];
    loader.read_coefficients(0, t, b);
    loader.read_coefficients(1, t, c);
#pragma unroll
    for (int n = 0; n < kScanStates; ++n) {
      h[n] = fmaf(exp2_approx(dt * decay[n]), h[n], dt_u * b[n]);
      y[n % 4] = fmaf(c[n], h[n], y[n % 4]);
    }
    float gated = (y[0] + y[1] + (y[2] + y[3])) * z * sigmoid(z);
    if constexpr (kAccumulate) gated += loader.operand(3, t, parity);
    if (exists) *place = from_float<T>(gated);
    place += out.place_stride;
  };
  loader.start(min(count, kScanTile_tokens), 0);
  int parity = 0;
  for (int i = 0; i < count; i += kScanTile_tokens, parity ^= 1) {
    loader.finish();
    loader.start(min(count - i - kScanTile_tokens, kScanTile_tokens), parity ^ 1);
    for (int part = 0; part < kScanTile_tokens && part < count - i; part += kCheckpoint_tokens) {
      if (kKeeps && exists) {
        store_checkpoint<T>(h, min(states, kScanStates), checkpoint, results.checkpoint_row_stride);
        checkpoint += results.checkpoint_stride;
      }
      if (count - i - part >= kCheckpoint_tokens) {
#pragma unroll 4
        for (int t = 0; t < kCheckpoint_tokens; ++t) step(part + t, parity);
      } else {
        for (int t = part; t < count - i; ++t) step(t, parity);
      }
    }
  }
  const bool hands_on = piece + 1 < pieces.count;
  if (!hands_on && piece > 0) set_done(pieces.done + of_segment, 0);  // for the next launch
  if (!hands_on && (results.final_state.data == nullptr || block.segment + 1 < in.segments)) return;
  const States<float> after = hands_on ? pieces.state : results.final_state;
  float* const to = after.at(hands_on ? row : block.lane, in.first_state, d);
#pragma unroll
  for (int n = 0; n < kScanStates; ++n) {
    if (exists && n < states) __stcg(to + n * after.state_stride, h[n]);
  }
  if (hands_on) set_done(pieces.done + of_segment, piece + 1);
}

/// Those of every segment, with `blocks` chains of them.
template <class T>
Pieces take_pieces(const ScanOperands<T>& in, unsigned blocks, Context& context) {
  constexpr std::int64_t kMost = 8, kFewest_tokens = 128;
  const std::int64_t count = std::clamp<std::int64_t>(in.segment_tokens / kFewest_tokens, 1, kMost);
  if (in.segments == 1 || count == 1) return {};
  const std::int64_t tokens = ceil_div(in.segment_tokens, count * kScanTile_tokens) * kScanTile_tokens;
  unsigned* const started = session_of(context).counters(std::int64_t{blocks} + 1);
  return {.count = static_cast<int>(ceil_div(in.segment_tokens, tokens)),
          .tokens = static_cast<int>(tokens),
          .state = context.scratch.take<float, 3>({in.segments * in.lanes, in.states, in.channels}),
          .started = started,
          .done = started + 1};
}

template <class T, bool kAccumulate, bool kKeeps>
void launch(ScanOperands<T> in, const Rows<T>& out, const ForwardResults& results, Context& context) {
  const auto kernel = forward_scan<T, kAccumulate, kKeeps>;
  constexpr std::size_t kShared_bytes = sizeof(typename ForwardLoader<T, kAccumulate>::Shared);
  if (kAccumulate) in.aligned = in.aligned && out.aligned();
  allow_shared_memory(kernel, kShared_bytes, "selective scan: shared memory");
  dim3 grid = scan_grid(in.lanes, in.channels, in.segments);
  const Arena::Scope scope(context.scratch);
  ForwardResults all = results;
  all.pieces = take_pieces(in, grid.x, context);
  grid.x *= all.pieces.count;
  launch_early(kernel, grid, kScanThreads, kShared_bytes, session_of(context), "selective scan", in, out,
               all);
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
  const View<float, 4>& checkpoints = output.checkpoints;
  ForwardResults results{input.state,           output.state,          checkpoints.data,
                         checkpoints.stride[0], checkpoints.stride[1], checkpoints.stride[2]};
  if (in.segments > 1) {
    View<const float, 4> states = input.segment_states;
    if (states.empty()) {
      const SegmentStates segments = take_segments(in, output.segment_states, context);
      scan_segments_forward(in, input.state, segments, output.state, context);
      states = segments.state;
      results.final_state = {};
    }
    results.state_before =
        View<const float, 3>(states.data, {in.segments * in.lanes, in.states, in.channels}, {});
  }
  const Rows<T> out(output.out, in.direction);
  const bool keeps = !checkpoints.empty();
  for_each_state_group(in, [&](const ScanOperands<T>& group) {
    if (output.accumulate || group.first_state > 0) {
      keeps ? launch<T, true, true>(group, out, results, context)
            : launch<T, true, false>(group, out, results, context);
    } else {
      keeps ? launch<T, false, true>(group, out, results, context)
            : launch<T, false, false>(group, out, results, context);
    }
  });
}

template void selective_scan_forward(const SelectiveScanInput<float>&, const SelectiveScanOutput<float>&,
                                     Context&);
template void selective_scan_forward(const SelectiveScanInput<bfloat16>&,
                                     const SelectiveScanOutput<bfloat16>&, Context&);

}  // namespace longstrand::cuda
