#include <algorithm>

#include "kernels/cuda_launch.cuh"
#include "kernels/selective_scan_cuda.cuh"
#include "kernels/selective_scan_cuda.hpp"

namespace longstrand::cuda {
namespace {

template <class T, Pass kPass>
using LocalLoader = TileLoader<T, kPass == Pass::forward ? 2 : 3, 1>;

/// The block's channels, those that forget fast side by side, so that whole warps have little to do: the
/// thread's one. How fast is guessed from A and the steps of the segment's tokens `first`, first + step and
/// so on, which are taken first. Threads without a channel come last.
template <class T>
__device__ int sorted_channel(const ScanOperands<T>& in, const ScanBlock& block, int first, int step) {
  constexpr int kSteps = 8;
  __shared__ float speed[kScanThreads];
  __shared__ int channel_of[kScanThreads];
  const int own = static_cast<int>(threadIdx.x);
  const std::int64_t d = block.first_channel() + own;
  speed[own] = INFINITY;
  if (d < in.channels) {
    float dt = 0;
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      if (i < block.count) dt += to_float(*block.at(in.dt, first + i * step, d));
    }
    speed[own] = dt * -in.decay[in.first_state * in.decay_stride + d];
  }
  __syncthreads();
  int rank = 0;
  for (int other = 0; other < kScanThreads; ++other) {
    rank += speed[other] < speed[own] || (speed[other] == speed[own] && other < own) ? 1 : 0;
  }
  channel_of[rank] = own;
  __syncthreads();
  return channel_of[own];
}

/// Forward: the state at the segment's end, from zero. Backward: the gradient of the state before the
/// segment, from a zero gradient of the state after it; d_out is its source. Every token's term is weighted
/// by the decay between it and the segment's end (or beginning), so that the tokens can be taken from there
/// on, only until all that is left is forgotten: a state that decays fast costs little. The sum of dt then
/// lacks what does not matter.
/// For most of bfloat16 there is scan_by_moments instead.
template <class T, Pass kPass>
class LocalScan {
 public:
  using Loader = LocalLoader<T, kPass>;

  __device__ LocalScan(const ScanOperands<T>& in, const Rows<const T>& d_out, typename Loader::Shared& shared)
      : block_(in),
        loader_(shared, block_.first_channel(), in.channels, in.aligned),
        channel_(sorted_channel(in, block_, first(), kForward ? -1 : 1)),
        states_(in.states - in.first_state) {
    set_operand(0, in.dt);
    if constexpr (kForward) {
      set_operand(1, in.u);
    } else {
      set_operand(1, in.z);
      set_operand(2, d_out);
    }
    const Rows<const T>& coefficients = kForward ? in.b : in.c;
    loader_.set_coefficient(0, block_.at(coefficients, first(), in.first_state),
                            kForward ? -coefficients.place_stride : coefficients.place_stride, states_);
    read_decay(in, min(block_.first_channel() + channel_, in.channels - 1), decay_);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      slowest_[g] = -INFINITY;
#pragma unroll
      for (int n = g * kGroup_states; n < (g + 1) * kGroup_states; ++n) {
        if (n < states_) slowest_[g] = fmaxf(slowest_[g], decay_[n]);
      }
      slowest_of_all_ = fmaxf(slowest_of_all_, slowest_[g]);
      if (g * kGroup_states < states_) fastest_ = fminf(fastest_, slowest_[g]);
    }
  }

  __device__ void run() {
    loader_.start(min(block_.count, kScanTile_tokens), 0);
    int parity = 0;
    for (int i = 0; i < block_.count; i += kScanTile_tokens, parity ^= 1) {
      if (!loader_.finish_if(total_dt_ * slowest_of_all_ > kForgotten_log2<T>)) break;
      const int left = block_.count - i;
      loader_.start(min(left - kScanTile_tokens, kScanTile_tokens), parity ^ 1);
      for (int run = 0; run < kScanTile_tokens; run += kRun_tokens) walk(run, parity);
    }
    loader_.drain();
  }

  __device__ void store(const ScanOperands<T>& in, float* state, float* sum_dt) const {
    const std::int64_t d = block_.first_channel() + channel_, row = block_.segment * in.lanes + block_.lane;
    if (d >= in.channels) return;
    // Of several groups of states, the one that forgets last has seen most.
    float& sum = sum_dt[row * in.channels + d];
    sum = in.first_state == 0 ? total_dt_ : fmaxf(sum, total_dt_);
#pragma unroll
    for (int n = 0; n < kScanStates; ++n) {
      if (n < states_) state[(row * in.states + in.first_state + n) * in.channels + d] = h_[n];
    }
  }

 private:
  static constexpr bool kForward = kPass == Pass::forward;
  static constexpr int kRun_tokens = 8;    // whose terms are in registers
  static constexpr int kGroup_states = 4;  // left out together
  static constexpr int kGroups = kScanStates / kGroup_states;

  /// The token of the segment that is taken first.
  __device__ int first() const { return kForward ? max(block_.count - 1, 0) : 0; }
  __device__ void set_operand(int i, const Rows<const T>& x) {
    loader_.set_operand(i, block_.at(x, first(), block_.first_channel()),
                        kForward ? -x.place_stride : x.place_stride);
  }

  /// Tokens [run, run + kRun_tokens) of the tile; those that do not exist have no length and add nothing.
  __device__ void walk(int run, int parity) {
    const auto matters = [before = total_dt_](float decay) {
      return __any_sync(~0U, before * decay > kForgotten_log2<T>) != 0;
    };
    if (!matters(slowest_of_all_)) return;
    Terms terms;
#pragma unroll
    for (int j = 0; j < kRun_tokens; ++j) {
      const auto operand = [&](int i) { return loader_.operand(i, run + j, channel_, parity); };
      const float dt = operand(0);
      if constexpr (kForward) {
        terms.distance[j] = total_dt_;
        total_dt_ += dt;
        terms.source[j] = dt * operand(1);
      } else {
        total_dt_ += dt;
        terms.distance[j] = total_dt_;
        const float z = operand(1);
        terms.source[j] = operand(2) * z * sigmoid(z);
      }
    }
    if (matters(fastest_)) {
      add<0, kScanStates>(run, terms);
    } else {
      add_groups(run, terms, matters, std::make_integer_sequence<int, kGroups>());
    }
  }

  struct Terms {
    float distance[kRun_tokens], source[kRun_tokens];
  };

  template <class Matters, int... kGroup>
  __device__ void add_groups(int run, const Terms& terms, const Matters& matters,
                             std::integer_sequence<int, kGroup...>) {
    ((matters(slowest_[kGroup]) ? add<kGroup * kGroup_states, kGroup_states>(run, terms) : void()), ...);
  }

  template <int kFirst, int kCount>
  __device__ void add(int run, const Terms& terms) {
#pragma unroll
    for (int j = 0; j < kRun_tokens; ++j) {
      float row[kCount];
      loader_.read_coefficients(0, run + j, kFirst, row);
#pragma unroll
      for (int n = kFirst; n < kFirst + kCount; ++n) {
        const float weight = exp2_approx(terms.distance[j] * decay_[n]);
        h_[n] = fmaf(weight, terms.source[j] * row[n - kFirst], h_[n]);
      }
    }
  }

  const ScanBlock block_;
  Loader loader_;
  const int channel_, states_;
  float decay_[kScanStates], h_[kScanStates] = {};
  float slowest_[kGroups], slowest_of_all_ = -INFINITY, fastest_ = 0;  // decays
  float total_dt_ = 0;
};

template <class T, Pass kPass>
__global__ void __launch_bounds__(kScanThreads, kScanBlocksOfMultiprocessor)
    local_scan(const __grid_constant__ ScanOperands<T> in, const __grid_constant__ Rows<const T> d_out,
               float* state, float* sum_dt) {
  extern __shared__ __align__(16) unsigned char memory[];
  using Scan = LocalScan<T, kPass>;
  Scan scan(in, d_out, *reinterpret_cast<typename Scan::Loader::Shared*>(memory));
  scan.run();
  scan.store(in, state, sum_dt);
}

constexpr int kMostSlices = 16;
constexpr int kSegmentsOfSlice = 8;  // at least: few slices start and meet sooner

/// From what each segment does to a state, state' = decay state + local, to the state before each: in place
/// of `local`. A block has 32 channels of one lane and state; its slices, of threadIdx.y, take consecutive
/// segments, first to find what a slice does, then, knowing the state before the slice, to walk it. `reverse`
/// counts segments from the last one. `final`: for the state after all of them, or null.
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
  wait_for_turn();
  const float a = decay[n * decay_stride + column];
  const std::int64_t per_slice = ceil_div(segments, blockDim.y);
  const std::int64_t begin = slice * per_slice, end = min(begin + per_slice, segments);
  const std::int64_t row = (reverse ? segments - 1 - begin : begin) * lanes + lane;
  const std::int64_t dt_step = (reverse ? -1 : 1) * lanes * channels, local_step = dt_step * states;
  float total_dt = 0;
  const auto walk = [&](float state, bool replaces) {
    const float* dt_at = sum_dt + row * channels + column;
    float* local_at = local + (row * states + n) * channels + column;
    for (std::int64_t left = end - begin; left > 0; left -= kSegmentsOfSlice) {
      float dt[kSegmentsOfSlice] = {}, of_segment[kSegmentsOfSlice] = {};
      const float* from = local_at;
#pragma unroll
      for (int j = 0; j < kSegmentsOfSlice; ++j) {  // all at once: a replaced one would hold up the next
        if (j < left) dt[j] = *dt_at, of_segment[j] = *from;
        dt_at += dt_step, from += local_step;
      }
#pragma unroll
      for (int j = 0; j < kSegmentsOfSlice; ++j) {
        if (replaces && j < left) *local_at = state;
        local_at += local_step;
        state = fmaf(exp2_approx(dt[j] * a), state, of_segment[j]);
        total_dt += dt[j];
      }
    }
    return state;
  };
  if (blockDim.y > 1) {
    slice_state[slice][threadIdx.x] = walk(0, false);
    slice_decay[slice][threadIdx.x] = exp2_approx(total_dt * a);
  }
  __syncthreads();
  float state = initial[lane * initial_lane_stride + n * initial_row_stride + column];
  for (int s = 0; s < slice; ++s)
    state = fmaf(slice_decay[s][threadIdx.x], state, slice_state[s][threadIdx.x]);
  __syncthreads();  // every thread has read `initial`, which may be `final`
  if (!exists) return;
  state = walk(state, true);
  const bool last_slice = begin < segments ? end == segments : false;
  if (last_slice && final != nullptr) final[lane * final_lane_stride + n * final_row_stride + d] = state;
}

template <class T>
void connect(const ScanOperands<T>& in, const SegmentStates& segments, bool reverse,
             View<const float, 3> initial, View<float, 3> final, Context& context) {
  const auto blocks = static_cast<unsigned>(ceil_div(in.channels, 32) * in.states * in.lanes);
  const auto slices = static_cast<unsigned>(
      std::clamp<std::int64_t>(ceil_div(in.segments, kSegmentsOfSlice), 1, kMostSlices));
  launch_early(connect_segments, blocks, dim3(32, slices), 0, session_of(context),
               "selective scan: connect the segments", segments.state.data, segments.sum_dt.data, in.decay,
               in.decay_stride, in.segments, in.lanes, in.states, in.channels, reverse, initial.data,
               initial.stride[0], initial.stride[1], final.data, final.stride[0], final.stride[1]);
}

template <class T, Pass kPass>
void scan_locally(const ScanOperands<T>& in, Rows<const T> d_out, const SegmentStates& segments,
                  Context& context) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    if (scan_by_moments(kPass, in, d_out, segments, context)) return;
  }
  const auto kernel = local_scan<T, kPass>;
  constexpr std::size_t kShared_bytes = sizeof(typename LocalLoader<T, kPass>::Shared);
  allow_shared_memory(kernel, kShared_bytes, "selective scan: shared memory");
  for_each_state_group(in, [&](const ScanOperands<T>& group) {
    kernel<<<scan_grid(in.lanes, in.channels, in.segments), kScanThreads, kShared_bytes,
             stream_of(context)>>>(group, d_out, segments.state.data, segments.sum_dt.data);
  });
  check_launch("selective scan: segments");
}

/// Segments enough to keep the GPU busy and no more, since long ones forget more; of whole tiles and
/// checkpoints.
std::int64_t segment_length(std::int64_t lanes, std::int64_t tokens, std::int64_t channels,
                            int multiprocessors) {
  const std::int64_t blocks_of_segment = lanes * ceil_div(channels, kScanThreads);
  const std::int64_t wanted =
      std::max<std::int64_t>(1, multiprocessors * kScanBlocksOfMultiprocessor / blocks_of_segment);
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
    : u(input.u, input.direction),
      dt(input.dt, input.direction),
      b(input.b, input.direction),
      c(input.c, input.direction),
      z(input.z, input.direction),
      decay(input.decay.data),
      decay_stride(input.decay.stride[0]),
      d(input.d.data),
      valid(input.valid.data),
      lanes(input.u.shape[0]),
      tokens(input.u.shape[1]),
      channels(input.u.shape[2]),
      states(static_cast<int>(input.decay.shape[0])),
      segment_tokens(segment_length(lanes, tokens, channels, session.multiprocessors)),
      segments(ceil_div(tokens, segment_tokens)),
      direction(input.direction),
      aligned(channels % (16 / static_cast<std::int64_t>(sizeof(T))) == 0 && u.aligned() && dt.aligned() &&
              z.aligned()) {}

std::int64_t scan_segment_count(std::int64_t lanes, std::int64_t tokens, std::int64_t channels,
                                Context& context) {
  if (lanes * tokens * channels == 0) return 0;
  const std::int64_t length = segment_length(lanes, tokens, channels, session_of(context).multiprocessors);
  return length < tokens ? ceil_div(tokens, length) : 0;
}

template <class T>
SegmentStates take_segments(const ScanOperands<T>& in, View<float, 4> states, Context& context) {
  if (states.empty()) {
    states = context.scratch.take<float, 4>({in.segments, in.lanes, in.states, in.channels});
  }
  return {states, context.scratch.take<float, 3>({in.segments, in.lanes, in.channels})};
}

template <class T>
void scan_segments_forward(const ScanOperands<T>& in, View<const float, 3> initial,
                           const SegmentStates& segments, View<float, 3> final, Context& context) {
  scan_locally<T, Pass::forward>(in, {}, segments, context);
  connect_segments_forward(in, initial, segments, final, context);
}

template <class T>
void connect_segments_forward(const ScanOperands<T>& in, View<const float, 3> initial,
                              const SegmentStates& segments, View<float, 3> final, Context& context) {
  connect(in, segments, /*reverse=*/false, initial, final, context);
}

template <class T>
void scan_segments_backward(const ScanOperands<T>& in, Rows<const T> d_out, View<float, 3> d_state,
                            const SegmentStates& segments, Context& context) {
  ScanOperands<T> operands = in;
  operands.aligned = in.aligned && d_out.aligned();
  scan_locally<T, Pass::backward>(operands, d_out, segments, context);
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
template SegmentStates take_segments(const ScanOperands<float>&, View<float, 4>, Context&);
template SegmentStates take_segments(const ScanOperands<bfloat16>&, View<float, 4>, Context&);
template void scan_segments_forward(const ScanOperands<float>&, View<const float, 3>, const SegmentStates&,
                                    View<float, 3>, Context&);
template void scan_segments_forward(const ScanOperands<bfloat16>&, View<const float, 3>, const SegmentStates&,
                                    View<float, 3>, Context&);
template void connect_segments_forward(const ScanOperands<bfloat16>&, View<const float, 3>,
                                       const SegmentStates&, View<float, 3>, Context&);
template void scan_segments_backward(const ScanOperands<float>&, Rows<const float>, View<float, 3>,
                                     const SegmentStates&, Context&);
template void scan_segments_backward(const ScanOperands<bfloat16>&, Rows<const bfloat16>, View<float, 3>,
                                     const SegmentStates&, Context&);

}  // namespace longstrand::cuda
