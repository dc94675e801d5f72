// A group of threads holds a whole row in registers, so that each operand is read and written once. Backward,
// with r the residual, s = 1 / sqrt(mean(r^2) + epsilon) and g = d_out weight:
//
//   d_residual += s g - s^3 mean(g r) r;   d_weight += d_out r s
#include <algorithm>

#include "kernels/check.hpp"
#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_packet.cuh"
#include "kernels/cuda_reduce.cuh"
#include "kernels/rms_norm_cuda.hpp"

namespace longstrand::cuda {
namespace {

/// How a row is dealt out: kGroup threads, with kPackets packets of kElements elements each.
template <int kElements, int kGroup, int kPackets>
struct Layout {
  static constexpr int elements = kElements;
  static constexpr int group = kGroup;
  static constexpr int packets = kPackets;
  static constexpr int threads = kGroup < 128 ? 128 : kGroup;  // of a block
  static constexpr int groups = threads / kGroup;
  static constexpr int widest = kElements * kGroup * kPackets;
  /// Of a multiprocessor that backward shall fit, with four registers an element and some more.
  static constexpr int blocks = 65536 / (threads * (32 + 4 * kElements * kPackets));

  /// The first channel of the thread's packet `p`.
  __device__ static int channel(int p) {
    return (static_cast<int>(threadIdx.x) % kGroup + p * kGroup) * kElements;
  }
  __device__ static int group_index() { return static_cast<int>(threadIdx.x) / kGroup; }
};

/// Calls `launch` with the narrowest layout for rows of `channels`.
template <class Launch>
void with_layout(std::int64_t channels, bool packets, const Launch& launch) {
  const auto fits = [&]<class L>(L layout) {
    if (channels > L::widest) return false;
    launch(layout);
    return true;
  };
  const bool done = packets ? fits(Layout<kPacket, 8, 1>()) || fits(Layout<kPacket, 16, 1>()) ||
                                  fits(Layout<kPacket, 32, 1>()) || fits(Layout<kPacket, 32, 2>()) ||
                                  fits(Layout<kPacket, 32, 4>()) || fits(Layout<kPacket, 32, 6>()) ||
                                  fits(Layout<kPacket, 32, 8>()) || fits(Layout<kPacket, 256, 4>())
                            : fits(Layout<1, 32, 8>()) || fits(Layout<1, 256, 16>());
  if (!done) {
    throw std::logic_error(
        concat("RMSNorm: ", channels, " channels; a GPU takes at most ", Layout<kPacket, 256, 4>::widest));
  }
}

template <class T>
struct ForwardOperands {
  std::int64_t rows;
  int channels;
  float epsilon;
  const float* residual;
  std::int64_t residual_stride;
  const T* hidden;  // may be null
  std::int64_t hidden_stride;
  float sign;  // of hidden
  const float* weight;
  float* total;  // may be residual
  std::int64_t total_stride;
  T* normed;
  std::int64_t normed_stride;
};

template <class T, class L>
__global__ void __launch_bounds__(L::threads) forward_kernel(ForwardOperands<T> op) {
  constexpr int kElements = L::elements;
  wait_for_turn();
  const std::int64_t row = std::int64_t{blockIdx.x} * L::groups + L::group_index();
  if (row >= op.rows) return;
  const float* residual = op.residual + row * op.residual_stride;
  float r[L::packets][kElements] = {};
#pragma unroll
  for (int p = 0; p < L::packets; ++p) {
    if (L::channel(p) < op.channels) load(residual + L::channel(p), r[p]);
  }
  if (op.hidden != nullptr) {
    const T* hidden = op.hidden + row * op.hidden_stride;
    float h[L::packets][kElements] = {};
#pragma unroll
    for (int p = 0; p < L::packets; ++p) {
      if (L::channel(p) < op.channels) load(hidden + L::channel(p), h[p]);
    }
#pragma unroll
    for (int p = 0; p < L::packets; ++p) {
#pragma unroll
      for (int i = 0; i < kElements; ++i) r[p][i] += op.sign * h[p][i];
    }
  }
  if (op.hidden != nullptr || op.total != op.residual) {
    float* total = op.total + row * op.total_stride;
#pragma unroll
    for (int p = 0; p < L::packets; ++p) {
      if (L::channel(p) < op.channels) store(r[p], total + L::channel(p));
    }
  }
  float squares[1] = {0.0F};
#pragma unroll
  for (int p = 0; p < L::packets; ++p) {
#pragma unroll
    for (int i = 0; i < kElements; ++i) squares[0] += r[p][i] * r[p][i];
  }
  sum_over_group<L::group>(squares);
  const float s = rsqrtf(squares[0] / static_cast<float>(op.channels) + op.epsilon);
#pragma unroll
  for (int p = 0; p < L::packets; ++p) {
    const int channel = L::channel(p);
    if (channel >= op.channels) continue;
    float weight[kElements];
    load(op.weight + channel, weight);
#pragma unroll
    for (int i = 0; i < kElements; ++i) r[p][i] *= s * weight[i];
    store(r[p], op.normed + row * op.normed_stride + channel);
  }
}

template <class T>
struct BackwardOperands {
  std::int64_t rows;
  int channels;
  float epsilon;
  const float* residual;
  std::int64_t residual_stride;
  const float* weight;
  const T* d_out;
  std::int64_t d_out_stride;
  float* d_residual;
  std::int64_t d_residual_stride;
  T* d_hidden;
  std::int64_t d_hidden_stride;
  float* d_weight_parts;  // [blocks, D]
};

/// One row; adds its share to the thread's part of d_weight.
template <class T, class L>
__device__ void backward_row(const BackwardOperands<T>& op, std::int64_t row,
                             float (&d_weight)[L::packets][L::elements]) {
  constexpr int kElements = L::elements;
  float* d_residual = op.d_residual + row * op.d_residual_stride;
  float r[L::packets][kElements] = {};
  float d_out[L::packets][kElements] = {};
  float total[L::packets][kElements];
#pragma unroll
  for (int p = 0; p < L::packets; ++p) {
    const int channel = L::channel(p);
    if (channel >= op.channels) continue;
    load(op.residual + row * op.residual_stride + channel, r[p]);
    load(op.d_out + row * op.d_out_stride + channel, d_out[p]);
    load(d_residual + channel, total[p]);
  }
  float sums[2] = {0.0F, 0.0F};  // of squares r^2, of products g r
#pragma unroll
  for (int p = 0; p < L::packets; ++p) {
    if (L::channel(p) >= op.channels) continue;
    float weight[kElements];
    load(op.weight + L::channel(p), weight);
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      sums[0] += r[p][i] * r[p][i];
      sums[1] += d_out[p][i] * weight[i] * r[p][i];
    }
  }
  sum_over_group<L::group>(sums);
  const auto count = static_cast<float>(op.channels);
  const float s = rsqrtf(sums[0] / count + op.epsilon);
  const float along_r = s * s * (sums[1] / count);
#pragma unroll
  for (int p = 0; p < L::packets; ++p) {
    const int channel = L::channel(p);
    if (channel >= op.channels) continue;
    float weight[kElements];
    load(op.weight + channel, weight);
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      d_weight[p][i] += d_out[p][i] * (r[p][i] * s);
      total[p][i] += s * (d_out[p][i] * weight[i] - along_r * r[p][i]);
    }
    store(total[p], d_residual + channel);
    store(total[p], op.d_hidden + row * op.d_hidden_stride + channel);
  }
}

template <class T, class L>
__global__ void __launch_bounds__(L::threads, L::blocks) backward_kernel(BackwardOperands<T> op) {
  wait_for_turn();
  float d_weight[L::packets][L::elements] = {};
  const std::int64_t step = std::int64_t{gridDim.x} * L::groups;
  for (std::int64_t row = std::int64_t{blockIdx.x} * L::groups + L::group_index(); row < op.rows; row += step)
    backward_row<T, L>(op, row, d_weight);

  __shared__ float sum[L::widest];  // over the groups, one after the other
  for (int group = 0; group < L::groups; ++group) {
    if (group == L::group_index()) {
#pragma unroll
      for (int p = 0; p < L::packets; ++p) {
#pragma unroll
        for (int i = 0; i < L::elements; ++i) {
          float& of_channel = sum[L::channel(p) + i];
          of_channel = group == 0 ? d_weight[p][i] : of_channel + d_weight[p][i];
        }
      }
    }
    __syncthreads();
  }
  for (int channel = threadIdx.x; channel < op.channels; channel += L::threads) {
    op.d_weight_parts[std::int64_t{blockIdx.x} * op.channels + channel] = sum[channel];
  }
}

}  // namespace

template <class T>
void rms_norm_forward(View<const float, 2> residual, View<const T, 2> hidden, View<const float, 1> weight,
                      float epsilon, const RmsNormOutput<T>& output, Context& context, Hidden change) {
  const auto [rows, channels] = residual.shape;
  if (rows == 0) return;
  const ForwardOperands<T> op{.rows = rows,
                              .channels = static_cast<int>(channels),
                              .epsilon = epsilon,
                              .residual = residual.data,
                              .residual_stride = residual.stride[0],
                              .hidden = hidden.data,
                              .hidden_stride = hidden.stride[0],
                              .sign = static_cast<float>(change),
                              .weight = weight.data,
                              .total = output.residual.data,
                              .total_stride = output.residual.stride[0],
                              .normed = output.normed.data,
                              .normed_stride = output.normed.stride[0]};
  const bool packets = channels % kPacket == 0 && rows_hold_packets(residual) && rows_hold_packets(hidden) &&
                       rows_hold_packets(weight) && rows_hold_packets(output.residual) &&
                       rows_hold_packets(output.normed);
  Session& session = session_of(context);
  with_layout(channels, packets, [&]<class L>(L) {
    const auto blocks = static_cast<unsigned>(ceil_div(op.rows, L::groups));
    launch_early(forward_kernel<T, L>, blocks, L::threads, 0, session, "RMSNorm", op);
  });
}

template <class T>
void rms_norm_backward(View<const float, 2> residual, View<const float, 1> weight, float epsilon,
                       const RmsNormGradient<T>& gradient, Context& context) {
  const auto [rows, channels] = residual.shape;
  if (rows == 0) return;
  BackwardOperands<T> op{.rows = rows,
                         .channels = static_cast<int>(channels),
                         .epsilon = epsilon,
                         .residual = residual.data,
                         .residual_stride = residual.stride[0],
                         .weight = weight.data,
                         .d_out = gradient.d_out.data,
                         .d_out_stride = gradient.d_out.stride[0],
                         .d_residual = gradient.d_residual.data,
                         .d_residual_stride = gradient.d_residual.stride[0],
                         .d_hidden = gradient.d_hidden.data,
                         .d_hidden_stride = gradient.d_hidden.stride[0],
                         .d_weight_parts = nullptr};
  const bool packets = channels % kPacket == 0 && rows_hold_packets(residual) && rows_hold_packets(weight) &&
                       rows_hold_packets(gradient.d_out) && rows_hold_packets(gradient.d_residual) &&
                       rows_hold_packets(gradient.d_hidden);
  Session& session = session_of(context);
  const Arena::Scope scope(context.scratch);
  View<float, 2> parts;
  with_layout(channels, packets, [&]<class L>(L) {
    const std::int64_t blocks =
        std::min(ceil_div(op.rows, L::groups), resident_blocks(backward_kernel<T, L>, L::threads, session));
    parts = context.scratch.take<float, 2>({blocks, op.channels});
    op.d_weight_parts = parts.data;
    // Not early: its blocks would not spread evenly where others are still there.
    backward_kernel<T, L><<<static_cast<unsigned>(blocks), L::threads, 0, session.stream>>>(op);
  });
  check_launch("gradient of RMSNorm");
  add_row_sums({{parts, gradient.d_weight}}, context);
}

template void rms_norm_forward(View<const float, 2>, View<const float, 2>, View<const float, 1>, float,
                               const RmsNormOutput<float>&, Context&, Hidden);
template void rms_norm_forward(View<const float, 2>, View<const bfloat16, 2>, View<const float, 1>, float,
                               const RmsNormOutput<bfloat16>&, Context&, Hidden);
template void rms_norm_backward(View<const float, 2>, View<const float, 1>, float,
                                const RmsNormGradient<float>&, Context&);
template void rms_norm_backward(View<const float, 2>, View<const float, 1>, float,
                                const RmsNormGradient<bfloat16>&, Context&);

}  // namespace longstrand::cuda
