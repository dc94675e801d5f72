// What both directions of the causal convolution share. The length of a lane is cut into runs of tokens. A
// thread owns a packet of V neighbouring channels in one run: it walks along the run with the last K inputs
// in registers, and reads those before the run itself. Its loop is unrolled by a multiple of K tokens, so
// that token t has row t % K of such a window, and no row ever moves. What a step of the loop takes is loaded
// during the one before.
#pragma once

#include <algorithm>
#include <array>

#include "kernels/causal_conv.hpp"
#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_math.cuh"
#include "kernels/cuda_packet.cuh"
#include "kernels/cuda_reduce.cuh"
#include "kernels/cuda_rows.cuh"

namespace longstrand::cuda::conv {

inline constexpr int kThreads = 128;  // of a block

/// Who does what. Threads are numbered packet by packet, then run by run, then lane by lane.
struct Plan {
  std::int64_t lanes, tokens;
  int packets;        // of a row
  int run_tokens;     // all runs have as many, but for the last of a lane
  std::int64_t runs;  // of a lane; at least one, which may be empty

  Plan(std::int64_t lane_count, std::int64_t token_count, std::int64_t packet_count, std::int64_t run)
      : lanes(lane_count),
        tokens(token_count),
        packets(static_cast<int>(packet_count)),
        run_tokens(static_cast<int>(run)),
        runs(std::max<std::int64_t>(ceil_div(token_count, run), 1)) {}

  /// One run for every thread that the device holds of `kernel` at a time, or where there is room for few, so
  /// many that hardly any of them idle in the last round; of whole steps, `fewest` at least.
  template <class Kernel>
  static Plan of_residents(Kernel* kernel, const std::array<std::int64_t, 3>& shape, std::int64_t channels,
                           std::int64_t step_tokens, std::int64_t fewest, const Session& session) {
    const auto [lanes, tokens, all_channels] = shape;
    const std::int64_t packets = all_channels / channels, threads_of_run = lanes * packets;
    constexpr std::int64_t kFewRuns = 4;
    std::int64_t threads = resident_blocks(kernel, kThreads, session) * kThreads;
    if (threads < kFewRuns * threads_of_run) threads *= kFewRuns;
    const std::int64_t runs = std::max<std::int64_t>(threads / threads_of_run, 1);
    const std::int64_t steps = std::max(ceil_div(ceil_div(tokens, runs), step_tokens), fewest);
    return {lanes, tokens, packets, steps * step_tokens};
  }

  unsigned blocks() const { return static_cast<unsigned>(ceil_div(lanes * runs * packets, kThreads)); }
  unsigned blocks_of_one_run() const { return static_cast<unsigned>(ceil_div(lanes * packets, kThreads)); }
};

/// The number of the calling thread in the grid.
__device__ inline std::int64_t thread_number() { return std::int64_t{blockIdx.x} * kThreads + threadIdx.x; }

/// The operands of forward that backward reads again.
template <class T>
struct Inputs {
  Rows<const T> x;
  const float* weight;
  std::int64_t weight_stride;
  const float* bias;
  Rows<const float> state;
  const std::int64_t* valid;
  Direction direction;

  explicit Inputs(const CausalConvInput<T>& input)
      : x(input.x, input.direction),
        weight(input.weight.data),
        weight_stride(input.weight.stride[0]),
        bias(input.bias.data),
        state(input.state, Direction::forward),
        valid(input.valid.data),
        direction(input.direction) {}
  __device__ std::int64_t first_place(std::int64_t lane) const {
    return cuda::first_place(direction, valid[lane]);
  }
};

/// A thread's share of a Plan. Tokens are counted from the run's first, in walking order.
struct Run {
  std::int64_t lane;  // Plan::lanes and more: nothing to do
  std::int64_t number;
  std::int64_t begin;  // among the lane's tokens
  std::int64_t place;  // of the first token
  int packet;
  int count;  // tokens of the run
  int valid;  // tokens of the lane that are no padding, from 0 to kMore more than the run has

  template <int kMore, class T>
  __device__ static Run of_thread(const Plan& plan, const Inputs<T>& in) {
    Run run;
    const std::int64_t thread = thread_number();
    run.packet = static_cast<int>(thread % plan.packets);
    const std::int64_t of_all = thread / plan.packets;
    run.number = of_all % plan.runs;
    run.lane = of_all / plan.runs;
    if (run.lane >= plan.lanes) return run;
    run.begin = run.number * plan.run_tokens;
    run.place = in.first_place(run.lane) + run.begin;
    run.count = static_cast<int>(min(std::int64_t{plan.run_tokens}, plan.tokens - run.begin));
    run.valid = static_cast<int>(
        max(std::int64_t{0}, min(in.valid[run.lane] - run.begin, std::int64_t{run.count} + kMore)));
    return run;
  }
};

/// K values of a channel. Where channels are taken in packets (V > 1), those of four taps are one.
template <int V, int K>
__device__ inline void load_row(const float* from, float (&to)[K]) {
  if constexpr (V > 1 && K == kPacket) {
    load(from, to);
  } else {
#pragma unroll
    for (int k = 0; k < K; ++k) to[k] = from[k];
  }
}
template <int V, int K>
__device__ inline void store_row(const float (&from)[K], float* to) {
  if constexpr (V > 1 && K == kPacket) {
    store(from, to);
  } else {
#pragma unroll
    for (int k = 0; k < K; ++k) to[k] = from[k];
  }
}

/// The kernel of V channels, times -log2(e): what it makes of x is then what exp2 takes for exp(-x).
template <int K, int V>
struct Taps {
  float weight[K][V];
  float bias[V];

  template <class T>
  __device__ Taps(const Inputs<T>& in, int channel) {
    float biases[V];
    load(in.bias + channel, biases);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      bias[i] = -kLog2E * biases[i];
      float of_channel[K];
      load_row<V>(in.weight + (channel + i) * in.weight_stride, of_channel);
#pragma unroll
      for (int k = 0; k < K; ++k) weight[k][i] = -kLog2E * of_channel[k];
    }
  }
  /// bias + sum_k weight[k] x_{t - (K - 1) + k}, for a token t whose row of the window is t % K.
  __device__ float convolve(const float (&window)[K][V], int t, int i) const {
    float sum = bias[i];
#pragma unroll
    for (int k = 0; k < K; ++k) sum = fmaf(weight[k][i], window[(t + 1 + k) % K][i], sum);
    return sum;
  }
  /// sum_k weight[k] d_sum_{t - k}, likewise.
  __device__ float correlate(const float (&d_sums)[K][V], int t, int i) const {
    float sum = 0.0F;
#pragma unroll
    for (int k = 0; k < K; ++k) sum = fmaf(weight[k][i], d_sums[(t + K - k) % K][i], sum);
    return sum;
  }
};

/// The K - 1 inputs walked before `token`, oldest first, to rows 1 to K - 1; those before the chunk are in
/// its initial state. In reverse there is nothing behind the last valid token: `token` must not be further.
template <int K, int V, class T>
__device__ void load_history(const Inputs<T>& in, std::int64_t lane, std::int64_t token, int channel,
                             float (&window)[K][V]) {
  const std::int64_t first_place = in.first_place(lane);
#pragma unroll
  for (int k = 0; k < K - 1; ++k) {
    const std::int64_t t = token - (K - 1) + k;
    float(&row)[V] = window[k + 1];
    if (t >= 0) {
      load(in.x.at(lane, first_place + t, channel), row);
    } else {
      load(in.state.at(lane, t + K - 1, channel), row);
    }
  }
}

/// Calls `launch` with the number of taps and the channels of a packet as constants.
template <class Launch>
void with_constants(std::int64_t taps, bool packets, const Launch& launch) {
  const auto with_taps = [&]<int K>(std::integral_constant<int, K> k) {
    if (taps != K) return;
    if (packets) {
      launch(k, std::integral_constant<int, kPacket>());
    } else {
      launch(k, std::integral_constant<int, 1>());
    }
  };
  static_assert(kFewestConvTaps == 2 && kMostConvTaps == 8);
  with_taps(std::integral_constant<int, 2>());
  with_taps(std::integral_constant<int, 3>());
  with_taps(std::integral_constant<int, 4>());
  with_taps(std::integral_constant<int, 5>());
  with_taps(std::integral_constant<int, 6>());
  with_taps(std::integral_constant<int, 7>());
  with_taps(std::integral_constant<int, 8>());
}

template <class T>
bool rows_hold_packets(const CausalConvInput<T>& input) {
  const bool taps = input.weight.shape[1] != kPacket || cuda::rows_hold_packets(input.weight);
  return input.x.shape[2] % kPacket == 0 && cuda::rows_hold_packets(input.x) &&
         cuda::rows_hold_packets(input.state) && cuda::rows_hold_packets(input.bias) && taps;
}

}  // namespace longstrand::cuda::conv
