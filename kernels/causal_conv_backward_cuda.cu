// With d_sum_t = d_out_t silu'(s_t), an input gets back d_x_t = sum_k weight[k] d_sum_{t + (K - 1) - k}. A
// thread walks its run and K - 1 tokens beyond: as soon as d_sum_t is known, the gradient of the input K - 1
// tokens back is complete. The last K - 1 inputs also are the final state, whose gradient is added; inputs
// before the chunk are the initial state, which a small kernel looks after when all have read the final one.
//
// Every thread adds up the gradients of its taps over its run and leaves them in a row of partial sums.
#include "kernels/causal_conv_cuda.cuh"
#include "kernels/causal_conv_cuda.hpp"
#include "kernels/cuda_reduce.cuh"

namespace longstrand::cuda {
namespace {

using conv::Inputs;
using conv::Plan;
using conv::Run;
using conv::Taps;

constexpr int kStep = 4;  // tokens whose loads a thread issues together

template <class T>
struct Operands {
  Inputs<T> in;
  Rows<const T> d_out;
  Rows<T> d_x;
  Rows<float> d_state;
  int channels;
  float* d_weight_parts;  // [B * runs, D, K]
  float* d_bias_parts;    // [B * runs, D]
};

/// What a thread keeps while it walks.
template <int K, int V>
struct Walk {
  float inputs[K - 1][V];       // those before the next token
  float d_sums[K - 1][V] = {};  // of the tokens before the next one, as far as they are of the run
  float d_weight[K][V] = {};
  float d_bias[V] = {};
};

/// `window` holds the inputs that the taps met to give the sums of which `d_sum` is the gradient.
template <int K, int V>
__device__ void add_to_taps(const float (*window)[V], const float (&d_sum)[V], Walk<K, V>& walk) {
#pragma unroll
  for (int i = 0; i < V; ++i) {
    walk.d_bias[i] += d_sum[i];
#pragma unroll
    for (int k = 0; k < K; ++k) walk.d_weight[k][i] += d_sum[i] * window[k][i];
  }
}

/// Goes on by the valid tokens [first, first + kTokens): their share of the gradients of the taps, where they
/// are of the run and not beyond it, and the gradients of the inputs K - 1 tokens before them.
template <int kTokens, int K, int V, class T>
__device__ void backward_step(const Operands<T>& op, const Taps<K, V>& taps, const Run& run, int first,
                              Walk<K, V>& walk) {
  const int channel = run.packet * V;
  float inputs[K - 1 + kTokens][V];
  float d_sums[K - 1 + kTokens][V];
  conv::copy_rows<K - 1>(walk.inputs, inputs);
  conv::copy_rows<K - 1>(walk.d_sums, d_sums);
  const T* x = op.in.x.at(run.lane, run.place + first, channel);
  const T* d_out = op.d_out.at(run.lane, run.place + first, channel);
#pragma unroll
  for (int u = 0; u < kTokens; ++u) {
    load(x + u * op.in.x.place_stride, inputs[K - 1 + u]);
    load(d_out + u * op.d_out.place_stride, d_sums[K - 1 + u]);
  }
#pragma unroll
  for (int u = 0; u < kTokens; ++u) {
    float(&d_sum)[V] = d_sums[K - 1 + u];
#pragma unroll
    for (int i = 0; i < V; ++i) d_sum[i] *= conv::silu_slope(taps.convolve(inputs + u, i));
    if (first < run.count) add_to_taps(inputs + u, d_sum, walk);
  }
  if (first >= K - 1) {
    T* d_x = op.d_x.at(run.lane, run.place + first - (K - 1), channel);
#pragma unroll
    for (int u = 0; u < kTokens; ++u) {
      float result[V];
#pragma unroll
      for (int i = 0; i < V; ++i) result[i] = taps.correlate(d_sums + u, i);
      store(result, d_x + u * op.d_x.place_stride);
    }
  }
  conv::copy_rows<K - 1>(inputs + kTokens, walk.inputs);
  conv::copy_rows<K - 1>(d_sums + kTokens, walk.d_sums);
}

/// The gradients of the run's tokens from run.valid - (K - 1) on: the last valid inputs, which are the final
/// state, and padding. Where the lane goes on past the run it has none of them.
template <int K, int V, class T>
__device__ void finish(const Operands<T>& op, const Taps<K, V>& taps, const Run& run,
                       const Walk<K, V>& walk) {
  const int channel = run.packet * V;
  float d_sums[2 * (K - 1)][V] = {};
  conv::copy_rows<K - 1>(walk.d_sums, d_sums);
#pragma unroll
  for (int k = 0; k < K - 1; ++k) {
    const int t = run.valid - (K - 1) + k;
    if (t < 0 || t >= run.count) continue;
    float result[V];
    load(op.d_state.at(run.lane, k, channel), result);
#pragma unroll
    for (int i = 0; i < V; ++i) result[i] += taps.correlate(d_sums + k, i);
    store(result, op.d_x.at(run.lane, run.place + t, channel));
  }
  const float zeros[V] = {};
  for (int t = run.valid; t < run.count; ++t)
    store(zeros, op.d_x.at(run.lane, place_of_row(op.in.direction, run.begin + t), channel));
}

template <int K, int V, class T>
__device__ void write_parts(const Operands<T>& op, std::int64_t row, int first_channel,
                            const Walk<K, V>& walk) {
  const std::int64_t channel = row * op.channels + first_channel;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    op.d_bias_parts[channel + i] = walk.d_bias[i];
#pragma unroll
    for (int k = 0; k < K; ++k) op.d_weight_parts[(channel + i) * K + k] = walk.d_weight[k][i];
  }
}

template <int K, int V, class T>
__global__ void __launch_bounds__(conv::kThreads) backward_kernel(Operands<T> op, Plan plan) {
  const Run run = Run::of_thread<K - 1>(plan, op.in);
  if (run.lane >= plan.lanes) return;
  const int channel = run.packet * V;
  const Taps<K, V> taps(op.in, channel);
  Walk<K, V> walk;
  if (run.valid > 0) conv::load_history<K>(op.in, run.lane, run.begin, channel, walk.inputs);
  const int whole = min(run.count, run.valid);
  int t = 0;
  while (t < run.valid) {
    if (t >= K - 1 && t + kStep <= whole) {
      backward_step<kStep>(op, taps, run, t, walk);
      t += kStep;
    } else {
      backward_step<1>(op, taps, run, t, walk);
      ++t;
    }
  }
  finish(op, taps, run, walk);
  write_parts(op, run.lane * plan.runs + run.number, channel, walk);
}

/// d_state of one packet of channels, in place: of the final state in, of the initial state out.
template <int K, int V, class T>
__global__ void __launch_bounds__(conv::kThreads) initial_state_kernel(Operands<T> op, Plan plan) {
  const std::int64_t thread = conv::thread_number();
  const std::int64_t lane = thread / plan.packets;
  if (lane >= plan.lanes) return;
  const int channel = static_cast<int>(thread % plan.packets) * V;
  const std::int64_t valid = op.in.valid[lane];
  const std::int64_t first_place = op.in.first_place(lane);
  const Taps<K, V> taps(op.in, channel);
  float window[2 * (K - 1)][V] = {};
  conv::load_history<K>(op.in, lane, 0, channel, window);
  float d_initial[K - 1][V] = {};
#pragma unroll
  for (int t = 0; t < K - 1; ++t) {
    if (t >= valid) {  // row t of the initial state is row t - valid of the final one
      float d_final[V];
      load(op.d_state.at(lane, t - valid, channel), d_final);
#pragma unroll
      for (int i = 0; i < V; ++i) d_initial[t][i] += d_final[i];
      continue;
    }
    load(op.in.x.at(lane, first_place + t, channel), window[K - 1 + t]);
    float d_out[V];
    load(op.d_out.at(lane, first_place + t, channel), d_out);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float d_sum = d_out[i] * conv::silu_slope(taps.convolve(window + t, i));
#pragma unroll
      for (int j = t; j < K - 1; ++j) d_initial[j][i] += taps.weight[j - t][i] * d_sum;
    }
  }
#pragma unroll
  for (int j = 0; j < K - 1; ++j) store(d_initial[j], op.d_state.at(lane, j, channel));
}

/// One run for every thread that the device holds at a time.
template <int K, int V, class T>
Plan plan_of(const CausalConvInput<T>& input, const Session& session) {
  const auto [lanes, tokens, channels] = input.x.shape;
  const std::int64_t packets = channels / V;
  const std::int64_t threads =
      resident_blocks(backward_kernel<K, V, T>, conv::kThreads, session) * conv::kThreads;
  const std::int64_t runs = std::max<std::int64_t>(threads / (lanes * packets), 1);
  const std::int64_t steps = std::max<std::int64_t>(ceil_div(ceil_div(tokens, runs), kStep), 4);
  return {lanes, tokens, packets, steps * kStep};
}

template <int K, int V, class T>
void launch_backward(const CausalConvInput<T>& input, const CausalConvGradient<T>& gradient,
                     Context& context) {
  Session& session = session_of(context);
  const Plan plan = plan_of<K, V>(input, session);
  const std::int64_t channels = input.x.shape[2];
  const Arena::Scope scope(context.scratch);
  const auto d_weight_parts = context.scratch.take<float, 2>({plan.lanes * plan.runs, channels * K});
  const auto d_bias_parts = context.scratch.take<float, 2>({plan.lanes * plan.runs, channels});
  const Operands<T> op{.in = Inputs<T>(input),
                       .d_out = Rows<const T>(gradient.d_out, input.direction),
                       .d_x = Rows<T>(gradient.d_x, input.direction),
                       .d_state = Rows<float>(gradient.d_state, Direction::forward),
                       .channels = static_cast<int>(channels),
                       .d_weight_parts = d_weight_parts.data,
                       .d_bias_parts = d_bias_parts.data};
  backward_kernel<K, V, T><<<plan.blocks(), conv::kThreads, 0, session.stream>>>(op, plan);
  check_launch("gradient of the causal convolution");
  initial_state_kernel<K, V, T><<<plan.blocks_of_one_run(), conv::kThreads, 0, session.stream>>>(op, plan);
  check_launch("gradient of the causal convolution's state");
  add_row_sums({{d_weight_parts, gradient.d_weight}, {d_bias_parts, gradient.d_bias}}, context);
}

}  // namespace

template <class T>
void causal_conv_backward(const CausalConvInput<T>& input, const CausalConvGradient<T>& gradient,
                          Context& context) {
  if (input.x.shape[0] == 0) return;
  const bool packets = conv::rows_hold_packets(input) && rows_hold_packets(gradient.d_out) &&
                       rows_hold_packets(gradient.d_x) && rows_hold_packets(gradient.d_state);
  conv::with_constants(input.weight.shape[1], packets,
                       [&]<int K, int V>(std::integral_constant<int, K>, std::integral_constant<int, V>) {
                         launch_backward<K, V>(input, gradient, context);
                       });
}

template void causal_conv_backward(const CausalConvInput<float>&, const CausalConvGradient<float>&, Context&);
template void causal_conv_backward(const CausalConvInput<bfloat16>&, const CausalConvGradient<bfloat16>&,
                                   Context&);

}  // namespace longstrand::cuda
