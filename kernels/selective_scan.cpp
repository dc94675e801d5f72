#include "kernels/selective_scan.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "kernels/check.hpp"
#include "kernels/selective_scan_cpu.hpp"
#include "kernels/selective_scan_cuda.hpp"

namespace longstrand {
namespace {

template <class T>
void check_input(const SelectiveScanInput<T>& input) {
  const auto [lanes, tokens, channels] = input.u.shape;
  const std::int64_t states = input.decay.shape[0];
  require_shape("selective scan: u", input.u, {lanes, tokens, channels});
  require_shape("selective scan: dt", input.dt, {lanes, tokens, channels});
  require_shape("selective scan: b", input.b, {lanes, tokens, states});
  require_shape("selective scan: c", input.c, {lanes, tokens, states});
  require_shape("selective scan: z", input.z, {lanes, tokens, channels});
  require_shape("selective scan: decay", input.decay, {states, channels});
  require_shape("selective scan: d", input.d, {channels});
  require_shape("selective scan: state", input.state, {lanes, states, channels});
  require_shape("selective scan: valid", input.valid, {lanes});
}

template <class T>
void check_gradient(const SelectiveScanInput<T>& input, const SelectiveScanGradient<T>& gradient) {
  const auto [lanes, tokens, channels] = input.u.shape;
  const std::int64_t states = input.decay.shape[0];
  require_shape("selective scan: d_out", gradient.d_out, {lanes, tokens, channels});
  require_shape("selective scan: checkpoints", gradient.checkpoints,
                {scan_checkpoint_count(tokens, input.u.device.kind), lanes,
                 scan_checkpoint_rows<T>(states, input.u.device.kind), channels});
  require_shape("selective scan: d_u", gradient.d_u, {lanes, tokens, channels});
  require_shape("selective scan: d_delta", gradient.d_delta, {lanes, tokens, channels});
  require_shape("selective scan: d_b", gradient.d_b, {lanes, tokens, states});
  require_shape("selective scan: d_c", gradient.d_c, {lanes, tokens, states});
  require_shape("selective scan: d_z", gradient.d_z, {lanes, tokens, channels});
  require_shape("selective scan: d_a_log", gradient.d_a_log, {channels, states});
  require_shape("selective scan: d_d", gradient.d_d, {channels});
  require_shape("selective scan: d_delta_bias", gradient.d_delta_bias, {channels});
  require_shape("selective scan: d_state", gradient.d_state, {lanes, states, channels});
}

}  // namespace

void prepare_decay(View<const float, 2> a_log, View<float, 2> decay, Context& context) {
  const auto [channels, states] = a_log.shape;
  require_shape("prepare decay: a_log", a_log, {channels, states});
  require_shape("prepare decay: decay", decay, {states, channels});
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) return cuda::prepare_decay(a_log, decay, context);
  }
  for (std::int64_t channel = 0; channel < channels; ++channel) {
    for (std::int64_t n = 0; n < states; ++n) {
      const double a = -std::exp(static_cast<double>(a_log.at(channel)[n]));
      decay.at(n)[channel] = static_cast<float>(a * std::numbers::log2e);
    }
  }
}

std::int64_t scan_segment_count(std::int64_t lanes, std::int64_t tokens, std::int64_t channels,
                                Context& context) {
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) {
      return cuda::scan_segment_count(lanes, tokens, channels, context);
    }
  }
  return 0;
}

std::vector<std::int64_t> scan_channel_order(const std::vector<double>& pace) {
  // As selective_scan_moments_cuda.cu has them.
  constexpr std::int64_t kWarp = 32;  // channels
  constexpr std::int64_t kWarpsOfBlock = 4;
  std::vector<std::int64_t> ranked(pace.size());
  std::iota(ranked.begin(), ranked.end(), 0);
  std::ranges::stable_sort(ranked, {}, [&](std::int64_t channel) { return pace[channel]; });
  const std::int64_t groups = std::ssize(pace) / kWarp, blocks = (groups + kWarpsOfBlock - 1) / kWarpsOfBlock;
  std::vector<std::int64_t> order = ranked;  // what makes up no whole warp stays last
  std::int64_t next = 0;
  for (std::int64_t warp = 0; warp < kWarpsOfBlock; ++warp) {
    for (std::int64_t block = 0; block < blocks; ++block) {
      const std::int64_t group = block * kWarpsOfBlock + warp;
      if (group >= groups) continue;
      std::copy_n(ranked.begin() + next, kWarp, order.begin() + group * kWarp);
      next += kWarp;
    }
  }
  return order;
}

template <class T>
void selective_scan_forward(const SelectiveScanInput<T>& input, const SelectiveScanOutput<T>& output,
                            Context& context) {
  const auto [lanes, tokens, channels] = input.u.shape;
  const std::int64_t states = input.decay.shape[0];
  check_input(input);
  require_shape("selective scan: out", output.out, {lanes, tokens, channels});
  require_shape("selective scan: final state", output.state, {lanes, states, channels});
  require_shape("selective scan: checkpoints", output.checkpoints,
                {scan_checkpoint_count(tokens, context.device.kind), lanes,
                 scan_checkpoint_rows<T>(states, context.device.kind), channels},
                true);
  const std::int64_t segments = scan_segment_count(lanes, tokens, channels, context);
  require_shape("selective scan: segment states", input.segment_states, {segments, lanes, states, channels},
                true);
  require_shape("selective scan: segment states to keep", output.segment_states,
                {segments, lanes, states, channels}, true);
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) return cuda::selective_scan_forward(input, output, context);
  }
  if constexpr (kCpuBuilt) return cpu::selective_scan_forward(input, output, context);
  throw NoCpuBackend();
}

template <class T>
void selective_scan_backward(const SelectiveScanInput<T>& input, const SelectiveScanGradient<T>& gradient,
                             Context& context) {
  check_input(input);
  check_gradient(input, gradient);
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda)
      return cuda::selective_scan_backward(input, gradient, context);
  }
  if constexpr (kCpuBuilt) return cpu::selective_scan_backward(input, gradient, context);
  throw NoCpuBackend();
}

template void selective_scan_forward(const SelectiveScanInput<float>&, const SelectiveScanOutput<float>&,
                                     Context&);
template void selective_scan_forward(const SelectiveScanInput<bfloat16>&,
                                     const SelectiveScanOutput<bfloat16>&, Context&);
template void selective_scan_backward(const SelectiveScanInput<float>&, const SelectiveScanGradient<float>&,
                                      Context&);
template void selective_scan_backward(const SelectiveScanInput<bfloat16>&,
                                      const SelectiveScanGradient<bfloat16>&, Context&);

}  // namespace longstrand
