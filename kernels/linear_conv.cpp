#include "kernels/linear_conv.hpp"

#include "kernels/check.hpp"
#include "kernels/linear_conv_cuda.hpp"
#include "kernels/linear_cuda.hpp"

namespace longstrand {
namespace {

template <class T>
void check_operands(const LinearConvInput<T>& input, const LinearConvOutput<T>& output) {
  const auto [lanes, tokens, inputs] = input.input.shape;
  const auto [channels, taps] = input.conv_weight.shape;
  require_shape("linear conv: input", input.input, {lanes, tokens, input.weight.in_features()});
  require_shape("linear conv: convolution's weight", input.conv_weight,
                {input.weight.out_features() / 2, taps});
  require_shape("linear conv: bias", input.conv_bias, {channels});
  require_shape("linear conv: state", input.state, {lanes, taps - 1, channels});
  require_shape("linear conv: valid", input.valid, {lanes});
  require_shape("linear conv: u", output.u, {lanes, tokens, channels});
  require_shape("linear conv: z", output.z, {lanes, tokens, channels});
  require_shape("linear conv: x", output.x, {lanes, tokens, channels}, true);
  require_shape("linear conv: final state", output.state, {lanes, taps - 1, channels});
}

}  // namespace

template <class T>
bool linear_conv_forward(const LinearConvInput<T>& input, const LinearConvOutput<T>& output,
                         Context& context) {
  check_operands(input, output);
  if constexpr (kCudaBuilt && std::is_same_v<T, bfloat16>) {
    return context.device.kind == DeviceKind::cuda &&
           cuda::linear_conv_forward(input, cuda::device_weight(input.weight), output, context);
  }
  return false;
}

template bool linear_conv_forward(const LinearConvInput<float>&, const LinearConvOutput<float>&, Context&);
template bool linear_conv_forward(const LinearConvInput<bfloat16>&, const LinearConvOutput<bfloat16>&,
                                  Context&);

}  // namespace longstrand
