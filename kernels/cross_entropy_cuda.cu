// A group of threads has a row, four for the few classes of DNA and a warp for many; it goes through the row
// once for each of maximum, sum and result, after the first time in the cache. Formulas as in
// cross_entropy_cpu.cpp.
#include <algorithm>

#include "kernels/cross_entropy_cuda.hpp"
#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_packet.cuh"
#include "kernels/cuda_reduce.cuh"

namespace longstrand::cuda {
namespace {

constexpr int kThreads = 256;

struct Rows {
  std::int64_t count;
  int classes;
  const float* logits;
  std::int64_t logits_stride;
  const std::int32_t* target;
  const float* weight;  // may be null
};

/// The row's class; where it is neither one nor kNoTarget, the row's results are NaN.
__device__ inline bool is_class(const Rows& rows, std::int32_t target) {
  return target >= 0 && target < rows.classes;
}

/// Calls visit(v, packet) for the thread's packets of V logits, the first of which is class v's.
template <int kGroup, int V, class Visit>
__device__ void for_packets(const float* logits, int classes, const Visit& visit) {
  for (int v = static_cast<int>(threadIdx.x) % kGroup * V; v < classes; v += kGroup * V) {
    float packet[V];
    load(logits + v, packet);
    visit(v, packet);
  }
}

template <int kGroup>
__device__ float largest_of_group(float value) {
  constexpr unsigned kFirst = 0xffffffffU >> (32 - kGroup);
  const unsigned mask = kFirst << (threadIdx.x % 32 / kGroup * kGroup);
#pragma unroll
  for (int offset = kGroup / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(mask, value, offset));
  }
  return value;
}

struct SoftmaxSums {
  float largest;
  float sum;  // of exp(logits - largest)
};

template <int kGroup, int V>
__device__ SoftmaxSums softmax_sums(const float* logits, int classes) {
  float largest = -INFINITY;
  for_packets<kGroup, V>(logits, classes, [&](int, const float(&x)[V]) {
#pragma unroll
    for (int i = 0; i < V; ++i) largest = fmaxf(largest, x[i]);  // without NaN, which the sum has
  });
  largest = largest_of_group<kGroup>(largest);
  float sum[1] = {0.0F};
  for_packets<kGroup, V>(logits, classes, [&](int, const float(&x)[V]) {
#pragma unroll
    for (int i = 0; i < V; ++i) sum[0] += expf(x[i] - largest);
  });
  sum_over_group<kGroup>(sum);
  return {largest, sum[0]};
}

__device__ inline float row_weight(const Rows& rows, std::int64_t row, std::int32_t target) {
  if (!is_class(rows, target)) return NAN;
  return rows.weight == nullptr ? 1.0F : rows.weight[row];
}

/// Writes the row's loss; returns logits[target] - largest.
template <int kGroup>
__device__ float finish_loss(const Rows& rows, std::int64_t row, std::int32_t target, const SoftmaxSums& sums,
                             float* loss) {
  const float* logits = rows.logits + row * rows.logits_stride;
  const float of_target = logits[is_class(rows, target) ? target : 0] - sums.largest;
  if (threadIdx.x % kGroup == 0) {
    loss[row] = row_weight(rows, row, target) * (logf(sums.sum) - of_target);
  }
  return of_target;
}

template <int kGroup>
__device__ std::int64_t row_of_group() {
  return (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / kGroup;
}

template <int kGroup, int V>
__global__ void __launch_bounds__(kThreads) forward_kernel(Rows rows, float* loss) {
  wait_for_turn();
  const std::int64_t row = row_of_group<kGroup>();
  if (row >= rows.count) return;
  const std::int32_t target = rows.target[row];
  if (target == kNoTarget) {
    if (threadIdx.x % kGroup == 0) loss[row] = 0.0F;
    return;
  }
  const float* logits = rows.logits + row * rows.logits_stride;
  finish_loss<kGroup>(rows, row, target, softmax_sums<kGroup, V>(logits, rows.classes), loss);
}

template <int kGroup, int V, class T>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(Rows rows, float scale, float* loss, T* all_d_logits, std::int64_t d_logits_stride) {
  const std::int64_t row = row_of_group<kGroup>();
  if (row >= rows.count) return;
  const std::int32_t target = rows.target[row];
  const float* logits = rows.logits + row * rows.logits_stride;
  T* d_logits = all_d_logits + row * d_logits_stride;
  if (target == kNoTarget) {
    if (threadIdx.x % kGroup == 0) loss[row] = 0.0F;
    const float none[V] = {};
    for (int v = static_cast<int>(threadIdx.x) % kGroup * V; v < rows.classes; v += kGroup * V) {
      store(none, d_logits + v);
    }
    return;
  }
  const SoftmaxSums sums = softmax_sums<kGroup, V>(logits, rows.classes);
  const float of_target = finish_loss<kGroup>(rows, row, target, sums, loss);
  const float row_scale = scale * row_weight(rows, row, target);
  const float factor = row_scale / sums.sum;
  const float at_target = row_scale * (expf(of_target) / sums.sum - 1.0F);
  for_packets<kGroup, V>(logits, rows.classes, [&](int v, const float(&x)[V]) {
    float d[V];
#pragma unroll
    for (int i = 0; i < V; ++i) d[i] = v + i == target ? at_target : expf(x[i] - sums.largest) * factor;
    store(d, d_logits + v);
  });
}

/// Writes the block's sums of loss, targets and hits to parts [blocks, 3].
template <int kGroup, int V>
__global__ void __launch_bounds__(kThreads) totals_kernel(Rows rows, const float* loss, double* parts) {
  double sums[3] = {};
  const std::int64_t step = std::int64_t{gridDim.x} * (kThreads / kGroup);
  for (std::int64_t row = row_of_group<kGroup>(); row < rows.count; row += step) {
    const std::int32_t target = rows.target[row];
    if (target == kNoTarget) continue;
    const float* logits = rows.logits + row * rows.logits_stride;
    const float of_target = is_class(rows, target) ? logits[target] : NAN;
    float larger[1] = {0.0F};  // how many classes are predicted rather than the target
    for_packets<kGroup, V>(logits, rows.classes, [&](int v, const float(&x)[V]) {
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const bool behind = v + i < target ? x[i] < of_target : !(x[i] > of_target);
        larger[0] += behind ? 0.0F : 1.0F;
      }
    });
    sum_over_group<kGroup>(larger);
    if (threadIdx.x % kGroup != 0) continue;
    sums[0] += loss[row];
    sums[1] += 1;
    sums[2] += is_class(rows, target) && larger[0] == 0.0F;
  }
  sum_over_group<kThreads>(sums);
  if (threadIdx.x == 0) {
#pragma unroll
    for (int i = 0; i < 3; ++i) parts[std::int64_t{blockIdx.x} * 3 + i] = sums[i];
  }
}

Rows rows_of(const CrossEntropyInput& input) {
  return {.count = input.logits.shape[0],
          .classes = static_cast<int>(input.logits.shape[1]),
          .logits = input.logits.data,
          .logits_stride = input.logits.stride[0],
          .target = input.target.data,
          .weight = input.weight.data};
}

/// Calls launch(threads a row, elements a packet), both as constants of a type.
template <class Launch>
void with_layout(int classes, bool packets, const Launch& launch) {
  const auto with_group = [&]<int kGroup>(std::integral_constant<int, kGroup> group) {
    packets ? launch(group, std::integral_constant<int, kPacket>())
            : launch(group, std::integral_constant<int, 1>());
  };
  classes <= 64 ? with_group(std::integral_constant<int, 4>())
                : with_group(std::integral_constant<int, 32>());
}

template <int kGroup>
unsigned blocks_for(std::int64_t rows) {
  return static_cast<unsigned>(ceil_div(rows, kThreads / kGroup));
}

}  // namespace

void cross_entropy_forward(const CrossEntropyInput& input, View<float, 1> loss, Context& context) {
  const Rows rows = rows_of(input);
  if (rows.count == 0) return;
  Session& session = session_of(context);
  const bool packets = rows.classes % kPacket == 0 && rows_hold_packets(input.logits);
  with_layout(rows.classes, packets,
              [&]<int kGroup, int V>(std::integral_constant<int, kGroup>, std::integral_constant<int, V>) {
                launch_early(forward_kernel<kGroup, V>, blocks_for<kGroup>(rows.count), kThreads, 0, session,
                             "cross entropy", rows, loss.data);
              });
}

template <class T>
void cross_entropy_backward(const CrossEntropyInput& input, float scale, View<float, 1> loss,
                            View<T, 2> d_logits, Context& context) {
  const Rows rows = rows_of(input);
  if (rows.count == 0) return;
  const cudaStream_t stream = stream_of(context);
  const bool packets =
      rows.classes % kPacket == 0 && rows_hold_packets(input.logits) && rows_hold_packets(d_logits);
  with_layout(rows.classes, packets,
              [&]<int kGroup, int V>(std::integral_constant<int, kGroup>, std::integral_constant<int, V>) {
                backward_kernel<kGroup, V><<<blocks_for<kGroup>(rows.count), kThreads, 0, stream>>>(
                    rows, scale, loss.data, d_logits.data, d_logits.stride[0]);
              });
  check_launch("gradient of the cross entropy");
}

void cross_entropy_totals(const CrossEntropyInput& input, View<const float, 1> loss, View<double, 1> totals,
                          Context& context) {
  constexpr unsigned kMostBlocks = 1024;  // of any GPU: the order of the sum depends on it
  const Rows rows = rows_of(input);
  if (rows.count == 0) return;
  const cudaStream_t stream = stream_of(context);
  const bool packets = rows.classes % kPacket == 0 && rows_hold_packets(input.logits);
  const Arena::Scope scope(context.scratch);
  View<double, 2> parts;
  with_layout(rows.classes, packets,
              [&]<int kGroup, int V>(std::integral_constant<int, kGroup>, std::integral_constant<int, V>) {
                const unsigned blocks = std::min(blocks_for<kGroup>(rows.count), kMostBlocks);
                parts = context.scratch.take<double, 2>({blocks, 3});
                totals_kernel<kGroup, V><<<blocks, kThreads, 0, stream>>>(rows, loss.data, parts.data);
              });
  check_launch("totals of the cross entropy");
  add_row_sums({{parts, totals}}, context);
}

template void cross_entropy_backward(const CrossEntropyInput&, float, View<float, 1>, View<float, 2>,
                                     Context&);
template void cross_entropy_backward(const CrossEntropyInput&, float, View<float, 1>, View<bfloat16, 2>,
                                     Context&);

}  // namespace longstrand::cuda
