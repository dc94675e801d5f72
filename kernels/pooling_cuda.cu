// Mean and maximum go in two stages: segments of a lane's tokens, then the segments of each lane. Their order
// depends on the operands' shape and the kind of GPU alone.
#include <algorithm>

#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_packet.cuh"
#include "kernels/cuda_reduce.cuh"
#include "kernels/pooling_cuda.hpp"

namespace longstrand::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kSlices = 8;  // of the rows, each gone through by one warp of a block

struct Sum {
  __device__ static double identity() { return 0.0; }
  __device__ static double combine(double so_far, double value) { return so_far + value; }
};

struct Maximum {
  __device__ static double identity() { return -INFINITY; }
  /// A NaN on either side stays.
  __device__ static double combine(double so_far, double value) {
    return value <= so_far || isnan(so_far) ? so_far : value;
  }
};

/// The values of each column's kSlices threads, combined in those of the first.
template <class Combine, int V>
__device__ void combine_slices(double (&values)[V]) {
  __shared__ double of_slices[kSlices][kWarp * V];
#pragma unroll
  for (int i = 0; i < V; ++i) of_slices[threadIdx.y][threadIdx.x * V + i] = values[i];
  __syncthreads();
  if (threadIdx.y != 0) return;
  for (int slice = 1; slice < kSlices; ++slice) {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      values[i] = Combine::combine(values[i], of_slices[slice][threadIdx.x * V + i]);
    }
  }
}

template <class T>
struct SegmentOperands {
  const T* hidden;
  std::int64_t lane_stride, row_stride;
  const std::int64_t* valid;
  std::int64_t channels;
  std::int64_t segments, segment_tokens;  // of a lane
  double* parts;                          // [B, segments, D]
};

template <class Combine, int V, class T>
__global__ void __launch_bounds__(kWarp* kSlices) segment_kernel(SegmentOperands<T> op) {
  wait_for_turn();
  const std::int64_t lane = blockIdx.x / op.segments;
  const std::int64_t begin = blockIdx.x % op.segments * op.segment_tokens;
  const std::int64_t end = min(begin + op.segment_tokens, op.valid[lane]);
  const std::int64_t channel = (std::int64_t{blockIdx.y} * kWarp + threadIdx.x) * V;
  const T* hidden = op.hidden + lane * op.lane_stride + channel;
  double values[V];
#pragma unroll
  for (double& value : values) value = Combine::identity();
  if (channel < op.channels) {
#pragma unroll 4
    for (std::int64_t t = begin + threadIdx.y; t < end; t += kSlices) {
      float row[V];
      load(hidden + t * op.row_stride, row);
#pragma unroll
      for (int i = 0; i < V; ++i) values[i] = Combine::combine(values[i], row[i]);
    }
  }
  combine_slices<Combine>(values);
  if (threadIdx.y != 0 || channel >= op.channels) return;
#pragma unroll
  for (int i = 0; i < V; ++i) op.parts[blockIdx.x * op.channels + channel + i] = values[i];
}

template <class Combine>
__global__ void __launch_bounds__(kWarp* kSlices)
    combine_kernel(const double* parts, std::int64_t segments, std::int64_t channels, std::int64_t tiles,
                   double* pooled, std::int64_t pooled_stride) {
  wait_for_turn();
  const std::int64_t lane = blockIdx.x / tiles;
  const std::int64_t channel = blockIdx.x % tiles * kWarp + threadIdx.x;
  double value[1] = {Combine::identity()};
  if (channel < channels) {
#pragma unroll 4
    for (std::int64_t segment = threadIdx.y; segment < segments; segment += kSlices) {
      value[0] = Combine::combine(value[0], parts[(lane * segments + segment) * channels + channel]);
    }
  }
  combine_slices<Combine>(value);
  if (threadIdx.y != 0 || channel >= channels) return;
  double& to = pooled[lane * pooled_stride + channel];
  to = Combine::combine(to, value[0]);
}

template <class Combine, int V, class T>
void pool_segments(View<const T, 3> hidden, View<const std::int64_t, 1> valid, View<double, 2> pooled,
                   Context& context) {
  constexpr std::int64_t kShortest_tokens = 64;  // a segment, but for those of short chunks
  const auto [lanes, tokens, channels] = hidden.shape;
  Session& session = session_of(context);
  const auto kernel = segment_kernel<Combine, V, T>;
  const std::int64_t tiles = ceil_div(channels, kWarp * V);
  const std::int64_t at_once = resident_blocks(kernel, kWarp * kSlices, session);
  const std::int64_t wanted =
      std::clamp<std::int64_t>(at_once / (lanes * tiles), 1, ceil_div(tokens, kShortest_tokens));
  const std::int64_t segment_tokens = ceil_div(tokens, wanted);
  const std::int64_t segments = ceil_div(tokens, segment_tokens);

  const Arena::Scope scope(context.scratch);
  const auto parts = context.scratch.take<double, 3>({lanes, segments, channels});
  const dim3 threads(kWarp, kSlices);
  const dim3 blocks(static_cast<unsigned>(lanes * segments), static_cast<unsigned>(tiles));
  launch_early(kernel, blocks, threads, 0, session, "pooling",
               SegmentOperands<T>{.hidden = hidden.data,
                                  .lane_stride = hidden.stride[0],
                                  .row_stride = hidden.stride[1],
                                  .valid = valid.data,
                                  .channels = channels,
                                  .segments = segments,
                                  .segment_tokens = segment_tokens,
                                  .parts = parts.data});
  const std::int64_t combine_tiles = ceil_div(channels, kWarp);
  launch_early(combine_kernel<Combine>, static_cast<unsigned>(lanes * combine_tiles), threads, 0, session,
               "pooling of segments", parts.data, segments, channels, combine_tiles, pooled.data,
               pooled.stride[0]);
}

constexpr int kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads)
    last_kernel(const T* hidden, std::int64_t lane_stride, std::int64_t row_stride, const std::int64_t* valid,
                std::int64_t channels, std::int64_t tiles, double* pooled, std::int64_t pooled_stride) {
  wait_for_turn();
  const std::int64_t lane = blockIdx.x / tiles;
  const std::int64_t channel = blockIdx.x % tiles * kThreads + threadIdx.x;
  const std::int64_t count = valid[lane];
  if (channel >= channels || count == 0) return;
  pooled[lane * pooled_stride + channel] =
      to_float(hidden[lane * lane_stride + (count - 1) * row_stride + channel]);
}

template <class T>
void pool_last(View<const T, 3> hidden, View<const std::int64_t, 1> valid, View<double, 2> pooled,
               Context& context) {
  const auto [lanes, tokens, channels] = hidden.shape;
  const std::int64_t tiles = ceil_div(channels, kThreads);
  launch_early(last_kernel<T>, static_cast<unsigned>(lanes * tiles), kThreads, 0, session_of(context),
               "pooling of last rows", hidden.data, hidden.stride[0], hidden.stride[1], valid.data, channels,
               tiles, pooled.data, pooled.stride[0]);
}

template <class T>
struct BackwardOperands {
  const float* d_pooled;
  std::int64_t d_pooled_stride;
  const std::int64_t* valid;
  const std::uint8_t* is_last;  // null for the mean
  std::int64_t tokens, tiles;   // tiles: of a lane
  int channels;
  T* d_hidden;
  std::int64_t lane_stride, row_stride;
};

constexpr int kTile_tokens = 64;  // of one lane, for a block

template <int V, class T>
__global__ void __launch_bounds__(kThreads) backward_kernel(BackwardOperands<T> op) {
  const std::int64_t lane = blockIdx.x / op.tiles;
  const std::int64_t first = blockIdx.x % op.tiles * kTile_tokens;
  const auto rows = static_cast<int>(min(op.tokens - first, std::int64_t{kTile_tokens}));
  const std::int64_t count = op.valid[lane];
  // Rows [begin, count) have the gradient.
  const std::int64_t begin = op.is_last == nullptr ? 0 : op.is_last[lane] != 0 ? count - 1 : count;
  const float* d_pooled = op.d_pooled + lane * op.d_pooled_stride;
  T* d_hidden = op.d_hidden + lane * op.lane_stride + first * op.row_stride;
  const int packets = op.channels / V;
  for (int i = threadIdx.x; i < rows * packets; i += kThreads) {
    const int row = i / packets;
    const int channel = i % packets * V;
    float values[V] = {};
    if (first + row >= begin && first + row < count) load(d_pooled + channel, values);
    store(values, d_hidden + row * op.row_stride + channel);
  }
}

}  // namespace

template <class T>
void pooling_forward(View<const T, 3> hidden, View<const std::int64_t, 1> valid, Pooling mode,
                     View<double, 2> pooled, Context& context) {
  if (hidden.size() == 0) return;
  if (mode == Pooling::last) return pool_last(hidden, valid, pooled, context);
  const bool packets = hidden.shape[2] % kPacket == 0 && rows_hold_packets(hidden);
  const auto pool = [&]<class Combine>(Combine) {
    packets ? pool_segments<Combine, kPacket>(hidden, valid, pooled, context)
            : pool_segments<Combine, 1>(hidden, valid, pooled, context);
  };
  mode == Pooling::mean ? pool(Sum()) : pool(Maximum());
}

template <class T>
void pooling_backward(View<const float, 2> d_pooled, View<const std::int64_t, 1> valid,
                      View<const std::uint8_t, 1> is_last, Pooling mode, View<T, 3> d_hidden,
                      Context& context) {
  const auto [lanes, tokens, channels] = d_hidden.shape;
  if (d_hidden.size() == 0) return;
  const BackwardOperands<T> op{.d_pooled = d_pooled.data,
                               .d_pooled_stride = d_pooled.stride[0],
                               .valid = valid.data,
                               .is_last = mode == Pooling::mean ? nullptr : is_last.data,
                               .tokens = tokens,
                               .tiles = ceil_div(tokens, kTile_tokens),
                               .channels = static_cast<int>(channels),
                               .d_hidden = d_hidden.data,
                               .lane_stride = d_hidden.stride[0],
                               .row_stride = d_hidden.stride[1]};
  const bool packets = channels % kPacket == 0 && rows_hold_packets(d_pooled) && rows_hold_packets(d_hidden);
  const auto kernel = packets ? backward_kernel<kPacket, T> : backward_kernel<1, T>;
  kernel<<<static_cast<unsigned>(lanes * op.tiles), kThreads, 0, stream_of(context)>>>(op);
  check_launch("gradient of pooling");
}

template void pooling_forward(View<const float, 3>, View<const std::int64_t, 1>, Pooling, View<double, 2>,
                              Context&);
template void pooling_forward(View<const bfloat16, 3>, View<const std::int64_t, 1>, Pooling, View<double, 2>,
                              Context&);
template void pooling_backward(View<const float, 2>, View<const std::int64_t, 1>, View<const std::uint8_t, 1>,
                               Pooling, View<float, 3>, Context&);
template void pooling_backward(View<const float, 2>, View<const std::int64_t, 1>, View<const std::uint8_t, 1>,
                               Pooling, View<bfloat16, 3>, Context&);

}  // namespace longstrand::cuda
