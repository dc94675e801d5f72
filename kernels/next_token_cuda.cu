#include "kernels/cross_entropy.hpp"
#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_session.cuh"
#include "kernels/next_token_cuda.hpp"

namespace longstrand::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    targets_kernel(const std::uint8_t* tokens, std::int64_t token_lane_stride, const std::int32_t* next,
                   const std::int64_t* valid, TokenRange predicted, std::int64_t length, std::int64_t tiles,
                   std::int32_t* target) {
  wait_for_turn();
  const std::int64_t lane = blockIdx.x / tiles;
  const std::int64_t t = blockIdx.x % tiles * kThreads + threadIdx.x;
  if (t >= length) return;
  const std::int64_t following = t + 1;
  std::int32_t token = kNoTarget;
  if (following < valid[lane]) token = tokens[lane * token_lane_stride + following];
  if (following == valid[lane]) token = next[lane];
  target[lane * length + t] = predicted.contains(token) ? token : kNoTarget;
}

}  // namespace

void next_token_targets(View<const std::uint8_t, 2> tokens, View<const std::int32_t, 1> next,
                        View<const std::int64_t, 1> valid, TokenRange predicted, View<std::int32_t, 1> target,
                        Context& context) {
  const auto [lanes, length] = tokens.shape;
  if (lanes * length == 0) return;
  const std::int64_t tiles = ceil_div(length, kThreads);
  launch_early(targets_kernel, static_cast<unsigned>(lanes * tiles), kThreads, 0, session_of(context),
               "next tokens", tokens.data, tokens.stride[0], next.data, valid.data, predicted, length, tiles,
               target.data);
}

}  // namespace longstrand::cuda
