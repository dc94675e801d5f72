// A thread takes elements of a strand and those that they face: no other thread touches either.
#include <algorithm>

#include "kernels/cuda_packet.cuh"
#include "kernels/strands_cuda.hpp"

namespace longstrand::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTile_rows = 64;  // of one strand, for a block

/// A View<float, 4> [C, 2B, T, D] for device code.
struct Strands {
  float* data;
  std::int64_t chunk_stride, lane_stride, row_stride;
  std::int64_t chunk_rows;  // T

  explicit Strands(const View<float, 4>& rows)
      : data(rows.data),
        chunk_stride(rows.stride[0]),
        lane_stride(rows.stride[1]),
        row_stride(rows.stride[2]),
        chunk_rows(rows.shape[2]) {}
  __device__ float* row(std::int64_t lane, std::int64_t t) const {
    return data + t / chunk_rows * chunk_stride + lane * lane_stride + t % chunk_rows * row_stride;
  }
};

template <int V>
struct Exchange {
  int columns;

  __device__ int packets() const { return columns / V; }
  __device__ void operator()(float* row, float* facing, int packet) const {
    float* const here = row + packet * V;
    float* const there = facing + columns - (packet + 1) * V;
    float from_here[V], from_there[V], to_here[V], to_there[V];
    load(here, from_here);
    load(there, from_there);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      to_here[i] = from_there[V - 1 - i];
      to_there[i] = from_here[V - 1 - i];
    }
    store(to_here, here);
    store(to_there, there);
  }
};

struct Add {
  int columns;
  const std::int32_t* facing_column;  // null: each faces itself
  float scale;

  __device__ int packets() const { return columns; }
  __device__ void operator()(float* row, float* facing, int column) const {
    float& other = facing[facing_column == nullptr ? column : facing_column[column]];
    row[column] = other = (row[column] + other) * scale;
  }
};

/// A tile of a strand that was read, and what it faces.
template <class Operation>
__global__ void __launch_bounds__(kThreads)
    tile_kernel(Strands strands, const std::int64_t* length, std::int64_t tiles, Operation operation) {
  const std::int64_t lane = blockIdx.x / tiles * 2;
  const std::int64_t first = blockIdx.x % tiles * kTile_rows;
  const std::int64_t count = length[lane];
  const auto rows = static_cast<int>(max(std::int64_t{0}, min(std::int64_t{kTile_rows}, count - first)));
  const int packets = operation.packets();
  for (int i = threadIdx.x; i < rows * packets; i += kThreads) {
    const std::int64_t t = first + i / packets;
    operation(strands.row(lane, t), strands.row(lane + 1, count - 1 - t), i % packets);
  }
}

template <class Operation>
void launch(const View<float, 4>& rows, const View<const std::int64_t, 1>& length, Operation operation,
            const char* what, Context& context) {
  if (rows.size() == 0) return;
  const auto [chunks, lanes, tokens, columns] = rows.shape;
  const std::int64_t tiles = ceil_div(chunks * tokens, kTile_rows);
  tile_kernel<<<static_cast<unsigned>(lanes / 2 * tiles), kThreads, 0, stream_of(context)>>>(
      Strands(rows), length.data, tiles, operation);
  check_launch(what);
}

}  // namespace

void exchange_strands(View<float, 4> rows, View<const std::int64_t, 1> length, Context& context) {
  const auto columns = static_cast<int>(rows.shape[3]);
  if (columns % kPacket == 0 && rows_hold_packets(rows)) {
    launch(rows, length, Exchange<kPacket>{columns}, "exchange of strands", context);
  } else {
    launch(rows, length, Exchange<1>{columns}, "exchange of strands", context);
  }
}

void add_facing_strands(View<float, 4> rows, View<const std::int64_t, 1> length,
                        View<const std::int32_t, 1> facing, float scale, Context& context) {
  launch(rows, length, Add{static_cast<int>(rows.shape[3]), facing.data, scale}, "sum of strands", context);
}

}  // namespace longstrand::cuda
