#include "kernels/embedding.hpp"

#include <algorithm>

#include "kernels/check.hpp"
#include "kernels/embedding_cpu.hpp"
#include "kernels/embedding_cuda.hpp"
#include "kernels/partial_sum.hpp"

namespace longstrand {
namespace {

void require_tokens(const char* operation, View<const std::uint8_t, 2> tokens, std::int64_t vocabulary) {
  for (std::int64_t lane = 0; lane < tokens.shape[0]; ++lane) {
    for (std::int64_t t = 0; t < tokens.shape[1]; ++t) {
      if (*tokens.at(lane, t) < vocabulary) continue;
      throw std::logic_error(concat(operation, ": token ", int{*tokens.at(lane, t)}, " at [", lane, ", ", t,
                                    "] is not below the vocabulary's ", vocabulary));
    }
  }
}

}  // namespace

template <class T>
void embedding_forward(View<const std::uint8_t, 2> tokens, View<const T, 2> weight, View<T, 3> out,
                       Context& context) {
  const auto [lanes, length] = tokens.shape;
  require_shape("embedding_forward: out", out, {lanes, length, weight.shape[1]});
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) return cuda::embedding_forward(tokens, weight, out, context);
  }
  require_tokens("embedding_forward", tokens, weight.shape[0]);
  for (std::int64_t lane = 0; lane < lanes; ++lane) {
    for (std::int64_t t = 0; t < length; ++t) {
      std::copy_n(weight.at(*tokens.at(lane, t)), out.shape[2], out.at(lane, t));
    }
  }
}

template void embedding_forward(View<const std::uint8_t, 2>, View<const float, 2>, View<float, 3>, Context&);
template void embedding_forward(View<const std::uint8_t, 2>, View<const bfloat16, 2>, View<bfloat16, 3>,
                                Context&);

void embedding_backward(View<const std::uint8_t, 2> tokens, View<const float, 3> d_out,
                        View<float, 2> d_weight, Context& context) {
  const auto [lanes, length] = tokens.shape;
  require_shape("embedding_backward: d_out", d_out, {lanes, length, d_weight.shape[1]});
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) {
      return cuda::embedding_backward(tokens, d_out, d_weight, context);
    }
  }
  require_tokens("embedding_backward", tokens, d_weight.shape[0]);
  const PartialSum<2> of_call(d_weight, context);
  if constexpr (kCpuBuilt) return cpu::embedding_backward(tokens, d_out, of_call.view());
  throw NoCpuBackend();
}

}  // namespace longstrand
