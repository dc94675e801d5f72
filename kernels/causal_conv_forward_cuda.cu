#include "kernels/causal_conv_cuda.cuh"
#include "kernels/causal_conv_cuda.hpp"

namespace longstrand::cuda {
namespace {

using conv::Inputs;
using conv::Plan;
using conv::Run;
using conv::Taps;

template <int K>
constexpr int kStep = K <= 4 ? 2 * K : K;  // tokens

template <class T>
struct Operands {
  Inputs<T> in;
  Rows<T> out;
  Rows<float> final_state;
};

/// The inputs of the next tokens, as they lie in memory.
template <int K, int V, class T>
struct Ahead {
  Packet<T, V> x[kStep<K>];
  const T* next;  // input

  __device__ void load(int u, std::int64_t stride) {
    x[u] = packet_at<V>(next);
    next += stride;
  }
  __device__ void rewind(std::int64_t stride) { next -= kStep<K> * stride; }
};

/// Output of the next kStep tokens, to `out`; kWhole: at least so many are left.
template <bool kWhole, int K, int V, class T>
__device__ void forward_step(const Operands<T>& op, const Taps<K, V>& taps, int left, Ahead<K, V, T>& ahead,
                             float (&window)[K][V], T*& out) {
  // Where no whole step follows, the same ones are read again.
  if (kWhole && left < 2 * kStep<K>) ahead.rewind(op.in.x.place_stride);
#pragma unroll
  for (int u = 0; u < kStep<K>; ++u, out += op.out.place_stride) {
    if (!kWhole && u >= left) break;
    if (!kWhole) ahead.load(u, op.in.x.place_stride);
    unpack(ahead.x[u], window[u % K]);
    if (kWhole) ahead.load(u, op.in.x.place_stride);
    float result[V];
#pragma unroll
    for (int i = 0; i < V; ++i) result[i] = silu_of_scaled(taps.convolve(window, u, i));
    store(result, out);
  }
}

/// The final state of one packet of channels. The initial state, which may be the same memory, is read first.
template <int K, int V, class T>
__device__ void write_final_state(const Operands<T>& op, std::int64_t lane, int channel) {
  float window[K][V];
  conv::load_history(op.in, lane, op.in.valid[lane], channel, window);
#pragma unroll
  for (int k = 0; k < K - 1; ++k) store(window[k + 1], op.final_state.at(lane, k, channel));
}

template <int K, int V, class T>
__global__ void __launch_bounds__(conv::kThreads)
    forward_kernel(const __grid_constant__ Operands<T> op, const __grid_constant__ Plan plan) {
  wait_for_turn();
  const Run run = Run::of_thread<0>(plan, op.in);
  if (run.lane >= plan.lanes) return;
  const int channel = run.packet * V;
  Ahead<K, V, T> ahead;
  ahead.next = op.in.x.at(run.lane, run.place, channel);
  if (kStep<K> <= run.valid) {
#pragma unroll
    for (int u = 0; u < kStep<K>; ++u) ahead.load(u, op.in.x.place_stride);
  }
  const Taps<K, V> taps(op.in, channel);
  float window[K][V];
  if (run.valid > 0) conv::load_history(op.in, run.lane, run.begin, channel, window);
  T* out = op.out.at(run.lane, run.place, channel);
  int left = run.valid;
  for (; left >= kStep<K>; left -= kStep<K>) {
    forward_step<true>(op, taps, left, ahead, window, out);
  }
  if (left > 0) forward_step<false>(op, taps, left, ahead, window, out);
  const float zeros[V] = {};
  for (int t = run.valid; t < run.count; ++t)
    store(zeros, op.out.at(run.lane, place_of_row(op.in.direction, run.begin + t), channel));
  // With several runs another thread may still have to read the initial state.
  if (plan.runs == 1) write_final_state<K, V>(op, run.lane, channel);
}

template <int K, int V, class T>
__global__ void __launch_bounds__(conv::kThreads)
    final_state_kernel(const __grid_constant__ Operands<T> op, const __grid_constant__ Plan plan) {
  wait_for_turn();
  const std::int64_t thread = conv::thread_number();
  const std::int64_t lane = thread / plan.packets;
  if (lane >= plan.lanes) return;
  write_final_state<K, V>(op, lane, static_cast<int>(thread % plan.packets) * V);
}

}  // namespace

template <class T>
void causal_conv_forward(const CausalConvInput<T>& input, View<T, 3> out, View<float, 3> state,
                         Context& context) {
  if (input.x.shape[0] == 0) return;
  Session& session = session_of(context);
  const Operands<T> op{Inputs<T>(input), Rows<T>(out, input.direction),
                       Rows<float>(state, Direction::forward)};
  const bool packets = conv::rows_hold_packets(input) && rows_hold_packets(out) && rows_hold_packets(state);
  conv::with_constants(
      input.weight.shape[1], packets,
      [&]<int K, int V>(std::integral_constant<int, K>, std::integral_constant<int, V>) {
        const auto kernel = forward_kernel<K, V, T>;
        const Plan plan = Plan::of_residents(kernel, input.x.shape, V, kStep<K>, /*fewest=*/1, session);
        launch_early(kernel, plan.blocks(), conv::kThreads, 0, session, "causal convolution", op, plan);
        if (plan.runs == 1) return;
        launch_early(final_state_kernel<K, V, T>, plan.blocks_of_one_run(), conv::kThreads, 0, session,
                     "final state of the causal convolution", op, plan);
      });
}

template void causal_conv_forward(const CausalConvInput<float>&, View<float, 3>, View<float, 3>, Context&);
template void causal_conv_forward(const CausalConvInput<bfloat16>&, View<bfloat16, 3>, View<float, 3>,
                                  Context&);

}  // namespace longstrand::cuda
