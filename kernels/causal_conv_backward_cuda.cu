// With d_sum_t = d_out_t silu'(s_t), an input gets back d_x_t = sum_k weight[k] d_sum_{t + (K - 1) - k}. A
// thread walks its run and K - 1 tokens beyond: as soon as d_sum_t is known, the gradient of the input K - 1
// tokens back is complete. The inputs before the chunk are its initial state. The last K - 1 inputs also are
// the final state, whose gradient is added when the walk comes K - 1 tokens behind them.
//
// Every thread adds up the gradients of its taps over its run and leaves them in a row of partial sums.
#include "kernels/causal_conv_cuda.cuh"
#include "kernels/causal_conv_cuda.hpp"
#include "kernels/transfer.hpp"

namespace longstrand::cuda {
namespace {

using conv::Inputs;
using conv::Plan;
using conv::Run;
using conv::Taps;

template <class T>
struct Operands {
  Inputs<T> in;
  Rows<const T> d_out;
  Rows<T> d_x;
  Rows<const float> d_final_state;
  float* d_initial_state;  // [B, K - 1, D]; other memory: another thread may still have to read the final one
  int channels;
  float* d_weight_parts;  // [B * runs, D, K]
  float* d_bias_parts;    // [B * runs, D]
};

/// What a thread keeps while it walks. All but the inputs is times -ln(2): Taps are times the inverse of it.
template <int K, int V>
struct Walk {
  float inputs[K][V] = {};
  float d_sums[K][V] = {};  // 0 before the run
  float d_weight[K][V] = {};
  float d_bias[V] = {};
};

/// -ln(2) times the derivative of s sigmoid(s) for s = -x / log2(e).
__device__ inline float slope_of_scaled(float x) {
  const float sigmoid = reciprocal_approx(1.0F + exp2_approx(x));
  return sigmoid * fmaf(x, fmaf(-kLn2 * kLn2, sigmoid, kLn2 * kLn2), -kLn2);
}

/// The inputs of the next K tokens and the gradients of their outputs, as they lie in memory.
template <int K, int V, class T>
struct Ahead {
  Packet<T, V> x[K] = {}, d_out[K] = {};
  const T *next_x, *next_d_out;

  __device__ void load(int u, const Operands<T>& op) {
    x[u] = packet_at<V>(next_x), d_out[u] = packet_at<V>(next_d_out);
    next_x += op.in.x.place_stride, next_d_out += op.d_out.place_stride;
  }
  /// The first `count` of them.
  __device__ void load_some(int count, const Operands<T>& op) {
#pragma unroll
    for (int u = 0; u < K; ++u) {
      if (u < count) load(u, op);
    }
  }
  __device__ void rewind(const Operands<T>& op) {
    next_x -= K * op.in.x.place_stride, next_d_out -= K * op.d_out.place_stride;
  }
};

/// A token whose row of the windows is u: what its output does to the taps, if it is `in_run`.
template <int K, int V, class T>
__device__ inline void add_token(const Taps<K, V>& taps, int u, const Ahead<K, V, T>& ahead, bool valid,
                                 bool in_run, Walk<K, V>& walk) {
  float(&d_sum)[V] = walk.d_sums[u];
  unpack(ahead.x[u], walk.inputs[u]);
  unpack(ahead.d_out[u], d_sum);
#pragma unroll
  for (int i = 0; i < V; ++i) {
    d_sum[i] = valid ? d_sum[i] * slope_of_scaled(taps.convolve(walk.inputs, u, i)) : 0.0F;
    if (!in_run) continue;
    walk.d_bias[i] += d_sum[i];
#pragma unroll
    for (int k = 0; k < K; ++k) {
      walk.d_weight[k][i] = fmaf(d_sum[i], walk.inputs[(u + 1 + k) % K][i], walk.d_weight[k][i]);
    }
  }
}

/// Goes on by K tokens of the run, all valid and K - 1 or more behind its first; `left` of it are such. The
/// gradient of the next input goes to d_x.
template <int K, int V, class T>
__device__ void whole_step(const Operands<T>& op, const Taps<K, V>& taps, int left, Ahead<K, V, T>& ahead,
                           Walk<K, V>& walk, T*& d_x) {
  if (left < 2 * K) ahead.rewind(op);  // no whole step follows: the same ones are read again
#pragma unroll
  for (int u = 0; u < K; ++u, d_x += op.d_x.place_stride) {
    add_token(taps, u, ahead, /*valid=*/true, /*in_run=*/true, walk);
    ahead.load(u, op);
    float result[V];
#pragma unroll
    for (int i = 0; i < V; ++i) result[i] = taps.correlate(walk.d_sums, u, i);
    store(result, d_x);
  }
}

/// Goes on by what there is of the K tokens from `first` on, which `ahead` has.
template <int K, int V, class T>
__device__ void any_step(const Operands<T>& op, const Taps<K, V>& taps, const Run& run, int first,
                         const Ahead<K, V, T>& ahead, Walk<K, V>& walk, T*& d_x) {
  const int channel = run.packet * V, own = min(run.count, run.valid);
#pragma unroll
  for (int u = 0; u < K; ++u) {
    const int t = first + u;
    if (t >= own + K - 1) return;
    add_token(taps, u, ahead, t < run.valid, t < own, walk);
    float result[V];
#pragma unroll
    for (int i = 0; i < V; ++i) result[i] = taps.correlate(walk.d_sums, u, i);
    if (t >= run.valid) {
      float d_final[V];
      load(op.d_final_state.at(run.lane, t - run.valid, channel), d_final);
#pragma unroll
      for (int i = 0; i < V; ++i) result[i] += d_final[i];
    }
    if (t >= K - 1) {
      store(result, d_x);
      d_x += op.d_x.place_stride;
    } else if (run.number == 0) {
      store(result, op.d_initial_state + (run.lane * (K - 1) + t) * op.channels + channel);
    }
  }
}

template <int K, int V, class T>
__device__ void write_parts(const Operands<T>& op, std::int64_t row, int first_channel,
                            const Walk<K, V>& walk) {
  const std::int64_t channel = row * op.channels + first_channel;
  float d_bias[V];
#pragma unroll
  for (int i = 0; i < V; ++i) {
    d_bias[i] = -kLog2E * walk.d_bias[i];
    float d_weight[K];
#pragma unroll
    for (int k = 0; k < K; ++k) d_weight[k] = -kLog2E * walk.d_weight[k][i];
    conv::store_row<V>(d_weight, op.d_weight_parts + (channel + i) * K);
  }
  store(d_bias, op.d_bias_parts + channel);
}

template <int K, int V, class T>
__global__ void __launch_bounds__(conv::kThreads, sizeof(T) == sizeof(float) ? 3 : 4)
    backward_kernel(const __grid_constant__ Operands<T> op, const __grid_constant__ Plan plan) {
  wait_for_turn();
  const Run run = Run::of_thread<K - 1>(plan, op.in);
  if (run.lane >= plan.lanes) return;
  const int channel = run.packet * V;
  const int own = min(run.count, run.valid);
  Ahead<K, V, T> ahead;
  ahead.next_x = op.in.x.at(run.lane, run.place, channel);
  ahead.next_d_out = op.d_out.at(run.lane, run.place, channel);
  ahead.load_some(run.valid, op);
  const Taps<K, V> taps(op.in, channel);
  Walk<K, V> walk;
  if (run.valid > 0) conv::load_history(op.in, run.lane, run.begin, channel, walk.inputs);
  T* d_x = op.d_x.at(run.lane, run.place, channel);
  if (run.valid > 0 || run.number == 0) {
    any_step(op, taps, run, 0, ahead, walk, d_x);
    int t = K;
    if (t + K <= own) ahead.load_some(K, op);
    for (; t + K <= own; t += K) whole_step(op, taps, own - t, ahead, walk, d_x);
    for (; t < own + K - 1; t += K) {
      ahead.load_some(run.valid - t, op);
      any_step(op, taps, run, t, ahead, walk, d_x);
    }
  }
  const float zeros[V] = {};
  for (int t = run.valid; t < run.count; ++t)
    store(zeros, op.d_x.at(run.lane, place_of_row(op.in.direction, run.begin + t), channel));
  write_parts(op, run.lane * plan.runs + run.number, channel, walk);
}

template <int K, int V, class T>
void launch_backward(const CausalConvInput<T>& input, const CausalConvGradient<T>& gradient,
                     Context& context) {
  Session& session = session_of(context);
  const auto kernel = backward_kernel<K, V, T>;
  const Plan plan = Plan::of_residents(kernel, input.x.shape, V, K, /*fewest=*/4, session);
  const std::int64_t channels = input.x.shape[2];
  const Arena::Scope scope(context.scratch);
  const auto d_weight_parts = context.scratch.take<float, 2>({plan.lanes * plan.runs, channels * K});
  const auto d_bias_parts = context.scratch.take<float, 2>({plan.lanes * plan.runs, channels});
  const auto d_initial_state = context.scratch.take<float, 2>({plan.lanes, (K - 1) * channels});
  const Operands<T> op{.in = Inputs<T>(input),
                       .d_out = Rows<const T>(gradient.d_out, input.direction),
                       .d_x = Rows<T>(gradient.d_x, input.direction),
                       .d_final_state = Rows<const float>(gradient.d_state, Direction::forward),
                       .d_initial_state = d_initial_state.data,
                       .channels = static_cast<int>(channels),
                       .d_weight_parts = d_weight_parts.data,
                       .d_bias_parts = d_bias_parts.data};
  launch_early(kernel, plan.blocks(), conv::kThreads, 0, session, "gradient of the causal convolution", op,
               plan);
  copy(View<const float, 3>(d_initial_state.data, gradient.d_state.shape, context.device), gradient.d_state,
       context);
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
