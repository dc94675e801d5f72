#include "kernels/causal_conv_cuda.cuh"
#include "kernels/causal_conv_cuda.hpp"

namespace longstrand::cuda {
namespace {

using conv::Inputs;
using conv::Plan;
using conv::Run;
using conv::Taps;

constexpr int kStep = 8;  // tokens whose loads a thread issues together

template <class T>
struct Operands {
  Inputs<T> in;
  Rows<T> out;
  Rows<float> final_state;
};

/// Output of the valid tokens [first, first + kTokens) of a run. `history` holds the K - 1 inputs before
/// them.
template <int kTokens, int K, int V, class T>
__device__ void forward_step(const Operands<T>& op, const Taps<K, V>& taps, const Run& run, int first,
                             float (&history)[K - 1][V]) {
  float window[K - 1 + kTokens][V];
  conv::copy_rows<K - 1>(history, window);
  const T* x = op.in.x.at(run.lane, run.place + first, run.packet * V);
#pragma unroll
  for (int u = 0; u < kTokens; ++u) load(x + u * op.in.x.place_stride, window[K - 1 + u]);
  T* out = op.out.at(run.lane, run.place + first, run.packet * V);
#pragma unroll
  for (int u = 0; u < kTokens; ++u) {
    float result[V];
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float sum = taps.convolve(window + u, i);
      result[i] = sum * sigmoid(sum);
    }
    store(result, out + u * op.out.place_stride);
  }
  conv::copy_rows<K - 1>(window + kTokens, history);
}

/// The final state of one packet of channels. The initial state, which may be the same memory, is read first.
template <int K, int V, class T>
__device__ void write_final_state(const Operands<T>& op, std::int64_t lane, int channel) {
  float history[K - 1][V];
  conv::load_history<K>(op.in, lane, op.in.valid[lane], channel, history);
#pragma unroll
  for (int k = 0; k < K - 1; ++k) store(history[k], op.final_state.at(lane, k, channel));
}

template <int K, int V, class T>
__global__ void __launch_bounds__(conv::kThreads) forward_kernel(Operands<T> op, Plan plan) {
  const Run run = Run::of_thread<0>(plan, op.in);
  if (run.lane >= plan.lanes) return;
  const int channel = run.packet * V;
  const Taps<K, V> taps(op.in, channel);
  float history[K - 1][V];
  if (run.valid > 0) conv::load_history<K>(op.in, run.lane, run.begin, channel, history);
  int t = 0;
  for (; t + kStep <= run.valid; t += kStep) forward_step<kStep>(op, taps, run, t, history);
  for (; t < run.valid; ++t) forward_step<1>(op, taps, run, t, history);
  const float zeros[V] = {};
  for (; t < run.count; ++t)
    store(zeros, op.out.at(run.lane, place_of_row(op.in.direction, run.begin + t), channel));
  // With several runs another thread may still have to read the initial state.
  if (plan.runs == 1) write_final_state<K, V>(op, run.lane, channel);
}

template <int K, int V, class T>
__global__ void __launch_bounds__(conv::kThreads) final_state_kernel(Operands<T> op, Plan plan) {
  const std::int64_t thread = conv::thread_number();
  const std::int64_t lane = thread / plan.packets;
  if (lane >= plan.lanes) return;
  write_final_state<K, V>(op, lane, static_cast<int>(thread % plan.packets) * V);
}

/// Long enough that the inputs read twice are few, but short enough to occupy the device where it can be.
std::int64_t run_tokens(std::int64_t lanes, std::int64_t tokens, std::int64_t packets,
                        const Session& session) {
  const std::int64_t wanted_threads = std::int64_t{session.multiprocessors} * 1024;
  std::int64_t result = 64;
  while (result > kStep && lanes * ceil_div(tokens, result) * packets < wanted_threads) result /= 2;
  return result;
}

}  // namespace

template <class T>
void causal_conv_forward(const CausalConvInput<T>& input, View<T, 3> out, View<float, 3> state,
                         Context& context) {
  const auto [lanes, tokens, channels] = input.x.shape;
  if (lanes == 0) return;
  Session& session = session_of(context);
  const Operands<T> op{Inputs<T>(input), Rows<T>(out, input.direction),
                       Rows<float>(state, Direction::forward)};
  const bool packets = conv::rows_hold_packets(input) && rows_hold_packets(out) && rows_hold_packets(state);
  const std::int64_t packet_count = channels / (packets ? kPacket : 1);
  const Plan plan(lanes, tokens, packet_count, run_tokens(lanes, tokens, packet_count, session));
  conv::with_constants(input.weight.shape[1], packets,
                       [&]<int K, int V>(std::integral_constant<int, K>, std::integral_constant<int, V>) {
                         forward_kernel<K, V, T>
                             <<<plan.blocks(), conv::kThreads, 0, session.stream>>>(op, plan);
                         check_launch("causal convolution");
                         if (plan.runs == 1) return;
                         final_state_kernel<K, V, T>
                             <<<plan.blocks_of_one_run(), conv::kThreads, 0, session.stream>>>(op, plan);
                         check_launch("final state of the causal convolution");
                       });
}

template void causal_conv_forward(const CausalConvInput<float>&, View<float, 3>, View<float, 3>, Context&);
template void causal_conv_forward(const CausalConvInput<bfloat16>&, View<bfloat16, 3>, View<float, 3>,
                                  Context&);

}  // namespace longstrand::cuda
