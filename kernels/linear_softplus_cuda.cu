// In bfloat16 the product, its bias and softplus are one kernel, which writes y once: a warp multiplies 16
// rows by 64 outputs at a time (mma.m16n8k16), with the weight of a block's outputs in shared memory. In
// float the product is cuBLASLt's, and softplus follows in place. A few rows are cuda_few_rows.cuh's.
#include <algorithm>

#include "kernels/cuda_few_rows.cuh"
#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_math.cuh"
#include "kernels/cuda_mma.cuh"
#include "kernels/cuda_packet.cuh"
#include "kernels/linear_cuda.hpp"

namespace longstrand::cuda {
namespace {

// -- float

constexpr int kThreads = 256;

__global__ void softplus_kernel(float* y, std::int64_t y_stride, const float* bias, std::int64_t rows,
                                std::int64_t outputs) {
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    for (std::int64_t i = threadIdx.x; i < outputs; i += blockDim.x) {
      float& value = y[row * y_stride + i];
      value = softplus(value + bias[i]);
    }
  }
}

}  // namespace

template <>
void linear_softplus_forward(View<const float, 2> x, View<const float, 2> weight, View<const float, 1> bias,
                             View<float, 2> y, Context& context) {
  if (x.shape[0] <= kFewRows) return multiply_few_rows(x, weight, bias, y, context);
  linear_forward<float, float>(x, weight, y, context);
  const auto blocks = static_cast<unsigned>(std::min<std::int64_t>(y.shape[0], 1 << 20));
  softplus_kernel<<<blocks, kThreads, 0, stream_of(context)>>>(y.data, y.stride[0], bias.data, y.shape[0],
                                                               y.shape[1]);
  check_launch("softplus");
}

// -- bfloat16

namespace {

constexpr int kWarps = kThreads / 32;
constexpr int kRows = 16;           // of a warp's tile
constexpr int kGroup = 64;          // outputs of a warp's tile
constexpr int kTiles = kGroup / 8;  // of mma
constexpr int kStep = 16;           // inputs of a mma
constexpr int kMostGroups = 4;      // of a block
constexpr int kBlocksOfMultiprocessor = 2;

struct Operands {
  const bfloat16* x;
  std::int64_t x_stride;
  const bfloat16* weight;
  std::int64_t weight_stride;
  const float* bias;
  bfloat16* y;
  std::int64_t y_stride;
  std::int64_t rows;
  int inputs, outputs;
  int steps, groups;  // of the inputs, of a block's outputs
};

/// A thread's share of the weight for two tiles and one step: the two registers of B for each.
using Fragments = uint4;

/// What a block keeps in shared memory of its outputs: the sums that a thread begins a tile with, biases, and
/// the weight in the order in which threads read it.
struct Outputs {
  float4* bias;       // [groups, kTiles, 4]
  Fragments* weight;  // [groups, steps, kTiles / 2, 32]

  static __host__ __device__ int bytes_of_group(int steps) {
    return static_cast<int>(kTiles * 4 * sizeof(float4) + steps * (kTiles / 2) * 32 * sizeof(Fragments));
  }
  __device__ Outputs(unsigned char* memory, int groups)
      : bias(reinterpret_cast<float4*>(memory)),
        weight(reinterpret_cast<Fragments*>(bias + groups * kTiles * 4)) {}
};

/// Which output of a group column `column` of a tile is, so that a thread's results in four tiles, of columns
/// 2 q and 2 q + 1 in the quarter q that it is in, are eight neighbours.
__device__ inline int output_of(int tile, int column) {
  return tile / 4 * 32 + column / 2 * 8 + tile % 4 * 2 + column % 2;
}

/// The first two of `count` elements, zero where there are none. kPaired: `from` is aligned to pairs, and
/// there is something behind an odd one.
template <bool kPaired>
__device__ __forceinline__ std::uint32_t load_pair(const bfloat16* from, int count) {
  if constexpr (kPaired) return count > 0 ? *reinterpret_cast<const std::uint32_t*>(from) : 0;
  const std::uint32_t first = count > 0 ? from[0].bits : 0, second = count > 1 ? from[1].bits : 0;
  return first | second << 16;
}

/// Of a block's outputs, the one that it counts as its i-th; the last one where there is none.
__device__ inline int output_at(const Operands& op, int block_output, int i) {
  return min(block_output + i, op.outputs - 1);
}

__device__ inline void load_bias(const Operands& op, int block_output, const Outputs& to) {
  for (int i = static_cast<int>(threadIdx.x); i < op.groups * kTiles * 4; i += kThreads) {
    const int group = i / (kTiles * 4), tile = i / 4 % kTiles, column = i % 4 * 2;
    const auto bias_of = [&](int of_tile) {
      return op.bias[output_at(op, block_output, group * kGroup + output_of(tile, of_tile))];
    };
    const float first = bias_of(column), second = bias_of(column + 1);
    to.bias[i] = {first, second, first, second};
  }
}

__device__ inline void load_weight(const Operands& op, int block_output, const Outputs& to) {
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x); i < op.groups * op.steps * (kTiles / 2) * 32; i += kThreads) {
    const int thread = i % 32, pair = i / 32 % (kTiles / 2), step = i / (16 * kTiles) % op.steps;
    const int group = i / (16 * kTiles) / op.steps;
    std::uint32_t part[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int row = output_at(op, block_output, group * kGroup + output_of(2 * pair + j / 2, thread / 4));
      const int input = step * kStep + thread % 4 * 2 + j % 2 * 8;
      part[j] = load_pair<true>(op.weight + row * op.weight_stride + input, op.inputs - input);
      if (op.inputs - input == 1) part[j] &= 0xFFFFU;
    }
    to.weight[i] = {part[0], part[1], part[2], part[3]};
  }
}

/// Eight neighbouring results, of which `count` exist.
template <bool kWhole>
__device__ inline void store_piece(const float (&sum)[8], bfloat16* to, int count) {
  std::uint32_t pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    pairs[i] = round_pair(softplus_coarse(sum[2 * i]), softplus_coarse(sum[2 * i + 1]));
  }
  if constexpr (kWhole) {
    *reinterpret_cast<uint4*>(to) = {pairs[0], pairs[1], pairs[2], pairs[3]};
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (i < count) to[i].bits = static_cast<std::uint16_t>(pairs[i / 2] >> i % 2 * 16);
    }
  }
}

/// How operands lie: anyhow; rows of x begin at whole pairs of elements, those of y at eights; and there are
/// whole steps of inputs.
enum class Layout { any, packets, whole_steps };

/// A thread's part of a warp's tiles: it has two rows of each, 8 apart, and 8 of every 32 outputs.
template <Layout kLayout>
class TileWalk {
 public:
  __device__ TileWalk(const Operands& op, const Outputs& outputs, int group, int first_output)
      : op_(op),
        bias_(shared_address(outputs.bias + group * kTiles * 4 + threadIdx.x % 4)),
        weight_(outputs.weight + group * op.steps * (kTiles / 2) * 32 + threadIdx.x % 32),
        input_(static_cast<int>(threadIdx.x) % 4 * 2),
        output_(first_output + static_cast<int>(threadIdx.x) % 4 * 8) {}

  /// Tiles from row `first` on, `stride` rows apart.
  __device__ void run(std::int64_t first, std::int64_t stride) {
    std::int64_t row = first + threadIdx.x % 32 / 4;
    bfloat16* y = op_.y + row * op_.y_stride + output_;
    std::uint32_t ahead[kStepsAhead][4];
    go_to(row);
#pragma unroll
    for (int step = 0; step < kStepsAhead; ++step) {
      if (step < op_.steps) load_rows(step, ahead[step]);
    }
    for (; first < op_.rows; first += stride, row += stride, y += stride * op_.y_stride) {
      float sum[kTiles][4];
      start(sum);
#pragma unroll 1
      for (int step = kStepsAhead; step < op_.steps; ++step) {
        std::uint32_t a[4];
        load_rows(step, a);
        multiply(step, a, sum);
      }
      go_to(row + stride);
#pragma unroll
      for (int step = 0; step < kStepsAhead; ++step) {
        if (step >= op_.steps) break;
        multiply(step, ahead[step], sum);
        load_rows(step, ahead[step]);
      }
      store(sum, row, y);
    }
  }

 private:
  static constexpr int kStepsAhead = 4;  // of the next tile, which are loaded during the one before

  /// To row `row` and the one 8 further; the last one where there is none.
  __device__ void go_to(std::int64_t row) {
#pragma unroll
    for (int i = 0; i < 2; ++i) x_[i] = op_.x + min(row + i * 8, op_.rows - 1) * op_.x_stride + input_;
  }

  /// A of a step.
  __device__ void load_rows(int step, std::uint32_t (&a)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int input = step * kStep + i / 2 * 8;
      const int left = kLayout == Layout::whole_steps ? kStep : op_.inputs - input_ - input;
      a[i] = load_pair<kLayout != Layout::any>(x_[i % 2] + input, left);
    }
  }

  /// The compiler would keep the biases in registers and copy them.
  __device__ void start(float (&sum)[kTiles][4]) const {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                   : "=f"(sum[tile][0]), "=f"(sum[tile][1]), "=f"(sum[tile][2]), "=f"(sum[tile][3])
                   : "r"(bias_ + tile * 4 * static_cast<unsigned>(sizeof(float4))));
    }
  }

  __device__ void multiply(int step, const std::uint32_t (&a)[4], float (&sum)[kTiles][4]) const {
#pragma unroll
    for (int pair = 0; pair < kTiles / 2; ++pair) {
      const Fragments b = weight_[(step * (kTiles / 2) + pair) * 32];
      multiply_add(sum[2 * pair], a, b.x, b.y);
      multiply_add(sum[2 * pair + 1], a, b.z, b.w);
    }
  }

  __device__ void store(const float (&sum)[kTiles][4], std::int64_t row, bfloat16* y) const {
#pragma unroll
    for (int half = 0; half < kGroup / 32; ++half) {
      const int left = op_.outputs - output_ - half * 32;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float piece[8];
#pragma unroll
        for (int j = 0; j < 8; ++j) piece[j] = sum[half * 4 + j / 2][i * 2 + j % 2];
        if (row + i * 8 < op_.rows && left > 0) {
          store_piece<kLayout != Layout::any>(piece, y + i * 8 * op_.y_stride + half * 32, left);
        }
      }
    }
  }

  const Operands& op_;
  const bfloat16* x_[2];  // the thread's rows
  const unsigned bias_;   // in shared memory
  const Fragments* const weight_;
  const int input_, output_;  // the thread's first
};

/// A block takes op.groups groups of outputs by blockIdx.y, and with its warps, one a group, as many tiles of
/// rows at a time as they are for.
template <Layout kLayout>
__global__ void __launch_bounds__(kThreads, kBlocksOfMultiprocessor)
    linear_softplus_kernel(const __grid_constant__ Operands op) {
  extern __shared__ __align__(16) unsigned char memory[];
  const Outputs outputs(memory, op.groups);
  const int block_output = static_cast<int>(blockIdx.y) * op.groups * kGroup;
  load_weight(op, block_output, outputs);
  wait_for_turn();
  load_bias(op, block_output, outputs);
  __syncthreads();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int group = warp % op.groups, tiles_at_once = kWarps / op.groups, tile = warp / op.groups;
  const int first_output = block_output + group * kGroup;
  if (tile >= tiles_at_once || first_output >= op.outputs) return;
  TileWalk<kLayout>(op, outputs, group, first_output)
      .run((std::int64_t{blockIdx.x} * tiles_at_once + tile) * kRows,
           std::int64_t{gridDim.x} * tiles_at_once * kRows);
}

}  // namespace

template <>
void linear_softplus_forward(View<const bfloat16, 2> x, View<const bfloat16, 2> weight,
                             View<const float, 1> bias, View<bfloat16, 2> y, Context& context) {
  if (x.shape[0] <= kFewRows) return multiply_few_rows(x, weight, bias, y, context);
  constexpr int kMostShared_bytes = 64 << 10;
  Operands op{.x = x.data,
              .x_stride = x.stride[0],
              .weight = weight.data,
              .weight_stride = weight.stride[0],
              .bias = bias.data,
              .y = y.data,
              .y_stride = y.stride[0],
              .rows = x.shape[0],
              .inputs = static_cast<int>(x.shape[1]),
              .outputs = static_cast<int>(y.shape[1]),
              .steps = static_cast<int>(ceil_div(x.shape[1], kStep)),
              .groups = 0};
  const bool packets =
      x.shape[1] % 2 == 0 && rows_hold_packets<2>(x) && y.shape[1] % 8 == 0 && rows_hold_packets<8>(y);
  const auto kernel = !packets                  ? linear_softplus_kernel<Layout::any>
                      : x.shape[1] % kStep == 0 ? linear_softplus_kernel<Layout::whole_steps>
                                                : linear_softplus_kernel<Layout::packets>;
  const int group_bytes = Outputs::bytes_of_group(op.steps);
  const auto all_groups = static_cast<int>(ceil_div(y.shape[1], kGroup));
  op.groups = std::max(1, std::min({all_groups, kMostGroups, kMostShared_bytes / group_bytes}));
  const int shared_bytes = op.groups * group_bytes;
  allow_shared_memory(kernel, shared_bytes, "linear softplus: shared memory");
  const auto columns = static_cast<unsigned>(ceil_div(all_groups, op.groups));
  // Blocks enough to fill the GPU: each brings its weight into shared memory once.
  const std::int64_t tiles = ceil_div(op.rows, kRows * (kWarps / op.groups));
  const std::int64_t resident = std::int64_t{session_of(context).multiprocessors} * kBlocksOfMultiprocessor;
  const auto rows = static_cast<unsigned>(std::clamp<std::int64_t>(resident / columns, 1, tiles));
  launch_early(kernel, dim3(rows, columns), kThreads, shared_bytes, session_of(context), "linear softplus",
               op);
}

}  // namespace longstrand::cuda
