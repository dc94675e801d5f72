#include "kernels/next_token.hpp"

#include "kernels/check.hpp"
#include "kernels/next_token_cpu.hpp"
#include "kernels/next_token_cuda.hpp"

namespace longstrand {

void next_token_targets(View<const std::uint8_t, 2> tokens, View<const std::int32_t, 1> next,
                        View<const std::int64_t, 1> valid, TokenRange predicted, View<std::int32_t, 1> target,
                        Context& context) {
  const auto [lanes, length] = tokens.shape;
  require_shape("next_token_targets: tokens", tokens, {lanes, length});
  require_shape("next_token_targets: next", next, {lanes});
  require_shape("next_token_targets: valid", valid, {lanes});
  require_shape("next_token_targets: target", target, {lanes * length});
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) {
      return cuda::next_token_targets(tokens, next, valid, predicted, target, context);
    }
  }
  cpu::next_token_targets(tokens, next, valid, predicted, target);
}

}  // namespace longstrand
