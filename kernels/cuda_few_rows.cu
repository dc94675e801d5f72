#include "kernels/cuda_few_rows.cuh"
#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_math.cuh"
#include "kernels/cuda_packet.cuh"
#include "kernels/cuda_reduce.cuh"

namespace longstrand::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kOutputs = 4;  // of a block, a warp each

template <class T, class Out>
struct Operands {
  const T* x;
  std::int64_t x_stride;
  const T* weight;
  std::int64_t weight_stride;
  const float* softplus_bias;  // null: the product alone
  Out* y;
  std::int64_t y_stride;
  std::int64_t outputs, inputs;
  int rows;  // kRows of the kernel at most
};

/// Inputs are read V at a time.
template <class T, class Out, int kRows, int V>
__global__ void __launch_bounds__(kOutputs* kWarp) few_rows_kernel(const Operands<T, Out> op) {
  wait_for_turn();
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t output = std::int64_t{blockIdx.x} * kOutputs + threadIdx.x / kWarp;
  if (output >= op.outputs) return;
  const T* const weight = op.weight + output * op.weight_stride;
  float sums[kRows] = {};
#pragma unroll 2
  for (std::int64_t i = lane * V; i < op.inputs; i += kWarp * V) {
    float w[V];
    load(weight + i, w);
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      float x[V];
      load(op.x + min(row, op.rows - 1) * op.x_stride + i, x);
#pragma unroll
      for (int v = 0; v < V; ++v) sums[row] = fmaf(w[v], x[v], sums[row]);
    }
  }
  sum_over_group<kWarp>(sums);
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    if (lane != row || row >= op.rows) continue;
    const float sum = sums[row];
    op.y[row * op.y_stride + output] =
        from_float<Out>(op.softplus_bias != nullptr ? softplus(sum + op.softplus_bias[output]) : sum);
  }
}

}  // namespace

template <class T, class Out>
void multiply_few_rows(View<const T, 2> x, View<const T, 2> weight, View<const float, 1> softplus_bias,
                       View<Out, 2> y, Context& context) {
  constexpr int kWidest = 16 / sizeof(T);
  const Operands<T, Out> op{.x = x.data,
                            .x_stride = x.stride[0],
                            .weight = weight.data,
                            .weight_stride = weight.stride[0],
                            .softplus_bias = softplus_bias.data,
                            .y = y.data,
                            .y_stride = y.stride[0],
                            .outputs = y.shape[1],
                            .inputs = x.shape[1],
                            .rows = static_cast<int>(x.shape[0])};
  const bool wide =
      op.inputs % kWidest == 0 && rows_hold_packets<kWidest>(x) && rows_hold_packets<kWidest>(weight);
  const bool one = op.rows == 1;
  const auto kernel =
      wide ? (one ? few_rows_kernel<T, Out, 1, kWidest> : few_rows_kernel<T, Out, kFewRows, kWidest>)
           : (one ? few_rows_kernel<T, Out, 1, 1> : few_rows_kernel<T, Out, kFewRows, 1>);
  launch_early(kernel, static_cast<unsigned>(ceil_div(op.outputs, kOutputs)), kOutputs * kWarp, 0,
               session_of(context), "matrix product of a few rows", op);
}

template void multiply_few_rows(View<const float, 2>, View<const float, 2>, View<const float, 1>,
                                View<float, 2>, Context&);
template void multiply_few_rows(View<const bfloat16, 2>, View<const bfloat16, 2>, View<const float, 1>,
                                View<bfloat16, 2>, Context&);
template void multiply_few_rows(View<const bfloat16, 2>, View<const bfloat16, 2>, View<const float, 1>,
                                View<float, 2>, Context&);

}  // namespace longstrand::cuda
