#include <algorithm>
#include <cmath>

#include "kernels/adamw_cuda.hpp"
#include "kernels/cuda_packet.cuh"
#include "kernels/cuda_reduce.cuh"
#include "kernels/transfer.hpp"

namespace longstrand::cuda {
namespace {

constexpr int kThreads = 256;

struct Factors {
  float beta1, beta2, rest1, rest2;  // rest: 1 - beta
  float scale;                       // of the gradient
  float keep;                        // 1 - learning_rate weight_decay
  float rate;                        // learning_rate / (1 - beta1^step)
  float root_scale;                  // 1 / sqrt(1 - beta2^step)
  float epsilon;
};

Factors factors_of(const AdamWOptions& options) {
  const auto exponent = static_cast<double>(options.step);
  const auto narrow = [](double value) { return static_cast<float>(value); };
  return {.beta1 = narrow(options.beta1),
          .beta2 = narrow(options.beta2),
          .rest1 = narrow(1 - options.beta1),
          .rest2 = narrow(1 - options.beta2),
          .scale = narrow(options.gradient_scale),
          .keep = narrow(1 - options.learning_rate * options.weight_decay),
          .rate = narrow(options.learning_rate / (1 - std::pow(options.beta1, exponent))),
          .root_scale = narrow(1 / std::sqrt(1 - std::pow(options.beta2, exponent))),
          .epsilon = narrow(options.epsilon)};
}

template <int V>
__device__ void update(const Factors& f, float* weight, const float* gradient, float* m, float* v) {
  float w_new[V], g[V], m_new[V], v_new[V];
  load(weight, w_new);
  load(gradient, g);
  load(m, m_new);
  load(v, v_new);
#pragma unroll
  for (int i = 0; i < V; ++i) {
    g[i] *= f.scale;
    m_new[i] = fmaf(f.beta1, m_new[i], f.rest1 * g[i]);
    v_new[i] = fmaf(f.beta2, v_new[i], f.rest2 * (g[i] * g[i]));
    const float divisor = fmaf(sqrtf(v_new[i]), f.root_scale, f.epsilon);
    w_new[i] = f.keep * w_new[i] - f.rate * (m_new[i] / divisor);
  }
  store(w_new, weight);
  store(m_new, m);
  store(v_new, v);
}

/// Whole packets, and by one thread the elements behind the last.
template <int V>
__global__ void __launch_bounds__(kThreads)
    step_kernel(Factors f, std::int64_t count, float* weight, const float* gradient, float* m, float* v) {
  const std::int64_t i = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) * V;
  if (i + V <= count) {
    update<V>(f, weight + i, gradient + i, m + i, v + i);
  } else {
    for (std::int64_t k = i; k < count; ++k) update<1>(f, weight + k, gradient + k, m + k, v + k);
  }
}

/// Writes each block's sum to parts [blocks].
__global__ void __launch_bounds__(kThreads)
    squares_kernel(const float* values, std::int64_t count, double* parts) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  double sum[1] = {0.0};
#pragma unroll 8
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    const double value = values[i];
    sum[0] = fma(value, value, sum[0]);
  }
  sum_over_group<kThreads>(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum[0];
}

}  // namespace

void adamw_step(View<float, 1> weight, View<const float, 1> gradient, View<float, 1> m, View<float, 1> v,
                const AdamWOptions& options, Context& context) {
  const std::int64_t count = weight.shape[0];
  if (count == 0) return;
  const bool packets = rows_hold_packets(weight) && rows_hold_packets(gradient) && rows_hold_packets(m) &&
                       rows_hold_packets(v);
  const auto blocks = static_cast<unsigned>(ceil_div(count, kThreads * (packets ? kPacket : 1)));
  const auto kernel = packets ? step_kernel<kPacket> : step_kernel<1>;
  kernel<<<blocks, kThreads, 0, stream_of(context)>>>(factors_of(options), count, weight.data, gradient.data,
                                                      m.data, v.data);
  check_launch("AdamW");
}

double sum_of_squares(View<const float, 1> values, Context& context) {
  constexpr std::int64_t kMostBlocks = 1024;  // of any GPU: the order of the sum depends on it
  const std::int64_t count = values.shape[0];
  if (count == 0) return 0.0;
  const Arena::Scope scope(context.scratch);
  const std::int64_t blocks = std::min(ceil_div(count, kThreads), kMostBlocks);
  const auto parts = context.scratch.take<double, 2>({blocks, 1});
  const auto total = context.scratch.take<double, 1>({1});
  fill(total, 0.0, context);
  squares_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream_of(context)>>>(values.data, count,
                                                                                     parts.data);
  check_launch("sum of squares");
  add_row_sums({{parts, total}}, context);
  double result = 0;
  copy(total, View<double, 1>(&result, {1}), context);
  return result;
}

}  // namespace longstrand::cuda
