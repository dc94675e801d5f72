#include <algorithm>

#include "kernels/cuda_packet.cuh"
#include "kernels/cuda_reduce.cuh"
#include "kernels/embedding_cuda.hpp"

namespace longstrand::cuda {
namespace {

constexpr int kWarp = 32;

template <class T>
struct ForwardOperands {
  const std::uint8_t* tokens;
  std::int64_t token_lane_stride;
  std::int64_t length;
  std::int64_t tiles;  // of a lane
  int vocabulary, channels;
  const T* weight;
  std::int64_t weight_stride;
  T* out;
  std::int64_t out_lane_stride, out_stride;
};

constexpr int kThreads = 256;
constexpr int kTile_tokens = 64;  // of one lane, for a block

template <int V, class T>
__global__ void __launch_bounds__(kThreads) forward_kernel(ForwardOperands<T> op) {
  const std::int64_t lane = blockIdx.x / op.tiles;
  const std::int64_t first = blockIdx.x % op.tiles * kTile_tokens;
  const auto rows = static_cast<int>(min(op.length - first, std::int64_t{kTile_tokens}));
  const std::uint8_t* tokens = op.tokens + lane * op.token_lane_stride + first;
  T* out = op.out + lane * op.out_lane_stride + first * op.out_stride;
  const int packets = op.channels / V;
  for (int i = threadIdx.x; i < rows * packets; i += kThreads) {
    const int row = i / packets;
    const int channel = i % packets * V;
    float values[V];
    if (tokens[row] < op.vocabulary) {
      load(op.weight + tokens[row] * op.weight_stride + channel, values);
    } else {
#pragma unroll
      for (float& value : values) value = __int_as_float(0x7fffffff);  // NaN
    }
    store(values, out + row * op.out_stride + channel);
  }
}

struct BackwardOperands {
  const std::uint8_t* tokens;
  std::int64_t token_lane_stride;
  std::int64_t length, rows, block_rows;
  int vocabulary, channels;
  const float* d_out;
  std::int64_t d_out_lane_stride, d_out_stride;
  float* parts;  // [blocks, V, D]
};

/// A row m = [lane, t] of [B, T], stepped through without divisions.
struct RowCursor {
  std::int64_t lane, t;
  __device__ RowCursor(std::int64_t row, std::int64_t length) : lane(row / length), t(row % length) {}
  __device__ void advance(int rows, std::int64_t length) {
    for (t += rows; t >= length; t -= length) ++lane;
  }
};

/// Adds every blockDim.y-th row of [begin, end) to the thread's columns of `table` [V, a warp's columns],
/// which no other thread touches. Rows are loaded some at a time: one by one would wait for memory.
template <int V>
__device__ void add_rows(const BackwardOperands& op, std::int64_t begin, std::int64_t end, int channel,
                         float* table) {
  constexpr int kAhead = 8;
  const int groups = blockDim.y;
  RowCursor cursor(begin, op.length);
  for (std::int64_t row = begin; row < end; row += std::int64_t{kAhead} * groups) {
    int token[kAhead];
    float d_out[kAhead][V];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      token[i] = op.vocabulary;
      if (row + i * groups < end) {
        token[i] = op.tokens[cursor.lane * op.token_lane_stride + cursor.t];
        load(op.d_out + cursor.lane * op.d_out_lane_stride + cursor.t * op.d_out_stride + channel, d_out[i]);
      }
      cursor.advance(groups, op.length);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (token[i] >= op.vocabulary) continue;
      float* to = table + token[i] * (kWarp * V);
      float sum[V];
      load(to, sum);
#pragma unroll
      for (int c = 0; c < V; ++c) sum[c] += d_out[i][c];
      store(sum, to);
    }
  }
}

/// A block has a piece of the rows and kWarp * V of the channels; each of its warps has a table of its own.
template <int V>
__global__ void backward_kernel(BackwardOperands op) {
  constexpr int kColumns = kWarp * V;
  extern __shared__ __align__(16) float tables[];  // [groups, V, kColumns]
  const int table_size = op.vocabulary * kColumns;
  const int groups = blockDim.y;
  const int thread = threadIdx.y * kWarp + threadIdx.x;
  for (int i = thread; i < table_size * groups; i += kWarp * groups) tables[i] = 0.0F;
  __syncthreads();
  const std::int64_t begin = blockIdx.x * op.block_rows;
  const std::int64_t end = min(begin + op.block_rows, op.rows);
  const int channel = blockIdx.y * kColumns + threadIdx.x * V;
  if (channel < op.channels) {
    add_rows<V>(op, begin + threadIdx.y, end, channel, tables + threadIdx.y * table_size + threadIdx.x * V);
  }
  __syncthreads();
  float* part = op.parts + std::int64_t{blockIdx.x} * op.vocabulary * op.channels;
  for (int i = thread; i < table_size; i += kWarp * groups) {
    const int column = blockIdx.y * kColumns + i % kColumns;
    if (column >= op.channels) continue;
    float sum = 0.0F;
    for (int group = 0; group < groups; ++group) sum += tables[group * table_size + i];
    part[std::int64_t{i / kColumns} * op.channels + column] = sum;
  }
}

template <int V>
void launch_backward(BackwardOperands op, View<float, 2> d_weight, Context& context) {
  constexpr std::int64_t kShared_bytes = 48 << 10;  // what a block has without asking
  constexpr std::int64_t kBlocks = 4;               // of a multiprocessor at once
  Session& session = session_of(context);
  const std::int64_t table_bytes = op.vocabulary * kWarp * V * std::int64_t{sizeof(float)};
  const auto groups = static_cast<unsigned>(std::clamp<std::int64_t>(kShared_bytes / table_bytes, 1, 4));
  const std::int64_t column_tiles = ceil_div(op.channels, kWarp * V);
  const std::int64_t most = std::max<std::int64_t>(kBlocks * session.multiprocessors / column_tiles, 1);
  op.block_rows = ceil_div(op.rows, std::min(most, ceil_div(op.rows, 64)));
  const std::int64_t blocks = ceil_div(op.rows, op.block_rows);

  const Arena::Scope scope(context.scratch);
  const auto parts = context.scratch.take<float, 2>({blocks, std::int64_t{op.vocabulary} * op.channels});
  op.parts = parts.data;
  backward_kernel<V><<<dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(column_tiles)),
                       dim3(kWarp, groups), groups * table_bytes, session.stream>>>(op);
  check_launch("gradient of the embedding");
  add_row_sums({{parts, d_weight.slice(0, op.vocabulary)}}, context);
}

}  // namespace

template <class T>
void embedding_forward(View<const std::uint8_t, 2> tokens, View<const T, 2> weight, View<T, 3> out,
                       Context& context) {
  const auto [lanes, length, channels] = out.shape;
  if (out.size() == 0) return;
  const ForwardOperands<T> op{.tokens = tokens.data,
                              .token_lane_stride = tokens.stride[0],
                              .length = length,
                              .tiles = ceil_div(length, kTile_tokens),
                              .vocabulary = static_cast<int>(weight.shape[0]),
                              .channels = static_cast<int>(channels),
                              .weight = weight.data,
                              .weight_stride = weight.stride[0],
                              .out = out.data,
                              .out_lane_stride = out.stride[0],
                              .out_stride = out.stride[1]};
  const bool packets = channels % kPacket == 0 && rows_hold_packets(weight) && rows_hold_packets(out);
  const auto kernel = packets ? forward_kernel<kPacket, T> : forward_kernel<1, T>;
  kernel<<<static_cast<unsigned>(lanes * op.tiles), kThreads, 0, stream_of(context)>>>(op);
  check_launch("embedding");
}

template void embedding_forward(View<const std::uint8_t, 2>, View<const float, 2>, View<float, 3>, Context&);
template void embedding_forward(View<const std::uint8_t, 2>, View<const bfloat16, 2>, View<bfloat16, 3>,
                                Context&);

void embedding_backward(View<const std::uint8_t, 2> tokens, View<const float, 3> d_out,
                        View<float, 2> d_weight, Context& context) {
  const auto [lanes, length, channels] = d_out.shape;
  if (d_out.size() == 0) return;
  const BackwardOperands op{.tokens = tokens.data,
                            .token_lane_stride = tokens.stride[0],
                            .length = length,
                            .rows = lanes * length,
                            .block_rows = 0,
                            .vocabulary = static_cast<int>(std::min<std::int64_t>(d_weight.shape[0], 256)),
                            .channels = static_cast<int>(channels),
                            .d_out = d_out.data,
                            .d_out_lane_stride = d_out.stride[0],
                            .d_out_stride = d_out.stride[1],
                            .parts = nullptr};
  constexpr int kMostTokensOfPackets = 96;  // whose table a block holds
  const bool packets =
      channels % kPacket == 0 && rows_hold_packets(d_out) && op.vocabulary <= kMostTokensOfPackets;
  packets ? launch_backward<kPacket>(op, d_weight, context) : launch_backward<1>(op, d_weight, context);
}

}  // namespace longstrand::cuda
