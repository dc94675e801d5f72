#include "kernels/selection.hpp"

#include "kernels/check.hpp"
#include "kernels/linear_cuda.hpp"
#include "kernels/selection_cuda.hpp"
#include "kernels/selective_scan.hpp"

namespace longstrand {
namespace {

template <class T>
void check_operands(const SelectionInput<T>& input, const SelectionOutput<T>& output, Context& context) {
  const auto [lanes, tokens, channels] = input.u.shape;
  const std::int64_t rank = input.dt_proj.in_features(), states = input.decay.shape[0];
  require_shape("selection: u", input.u, {lanes, tokens, input.x_proj.in_features()});
  require_shape("selection: dt_proj's bias", input.dt_bias, {input.dt_proj.out_features()});
  require_shape("selection: decay", input.decay, {states, channels});
  require_shape("selection: state", input.state, {lanes, states, channels});
  require_shape("selection: valid", input.valid, {lanes});
  require_shape("selection: x_dbl", output.x_dbl, {lanes, tokens, input.x_proj.out_features()});
  require_shape("selection: r, B and C", output.x_dbl, {lanes, tokens, rank + 2 * states});
  require_shape("selection: dt", output.dt, {lanes, tokens, channels});
  if (output.segment_states.empty()) return;
  require_shape("selection: segment states", output.segment_states,
                {scan_segment_count(lanes, tokens, channels, context), lanes, states, channels});
}

}  // namespace

template <class T>
bool selection_forward(const SelectionInput<T>& input, const SelectionOutput<T>& output, Context& context) {
  check_operands(input, output, context);
  if constexpr (kCudaBuilt && std::is_same_v<T, bfloat16>) {
    if (context.device.kind == DeviceKind::cuda &&
        cuda::selection_forward(input, cuda::device_weight(input.x_proj), cuda::device_weight(input.dt_proj),
                                output, context)) {
      return !output.segment_states.empty();
    }
  }
  const View<T, 2> x_dbl = rows(output.x_dbl);
  linear_forward<T, T>(rows(input.u), input.x_proj, x_dbl, context);
  linear_softplus_forward<T>(View<const T, 2>(x_dbl).columns(0, input.dt_proj.in_features()), input.dt_proj,
                             input.dt_bias, rows(output.dt), context);
  return false;
}

template bool selection_forward(const SelectionInput<float>&, const SelectionOutput<float>&, Context&);
template bool selection_forward(const SelectionInput<bfloat16>&, const SelectionOutput<bfloat16>&, Context&);

}  // namespace longstrand
