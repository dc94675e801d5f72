// What the blocks of linear_conv_hopper.cu have in shared memory, who of them does what, and how the operands
// come there.
#pragma once

#include <cstdint>

#include "kernels/cuda_rows.cuh"
#include "kernels/hopper.cuh"

namespace longstrand::cuda::linear_conv {

using hopper::Barrier;
using hopper::kWarpgroup;

inline constexpr int kTaps = 4;
inline constexpr int kRows = 64;       // tokens of a tile
inline constexpr int kChannels = 128;  // of a block
inline constexpr int kMostSteps = 4;   // blocks of 64 inputs, which the weight has room for
inline constexpr int kSlots = 8;       // for such blocks of a tile
inline constexpr int kGroups = 2;      // warpgroups that multiply
inline constexpr int kThreads = (kGroups + 1) * kWarpgroup;  // the last one convolves
inline constexpr int kPiece = 8;                    // channels that a thread reads and writes at once
inline constexpr int kPieces = kChannels / kPiece;  // of a row
inline constexpr int kStretch = kRows / (kWarpgroup / kPieces);  // rows of a thread in the convolution
inline constexpr int kRow_bytes = kChannels * sizeof(bfloat16);  // of x in shared memory
inline constexpr int kBlock_bytes = kRows * hopper::kBlockRow_bytes;
inline constexpr int kWeightBlock_bytes = 2 * kChannels * hopper::kBlockRow_bytes;

struct Shared {
  alignas(1024) unsigned char weight[kMostSteps][kWeightBlock_bytes];
  alignas(1024) unsigned char input[kSlots][kBlock_bytes];
  alignas(16) unsigned char x[kGroups][kRows * kRow_bytes];
  Barrier filled[kSlots], emptied[kSlots];
  Barrier read[kGroups];  // x has been. None of warpgroups: racecheck takes arrivals there for no order
};

// Barriers of warpgroups, one for each that multiplies: it is its turn to; its x is written.
enum { kTurn = 1, kWritten = kTurn + kGroups };

struct Operands {
  const bfloat16* weight;
  std::int64_t weight_stride;
  int inputs, channels;
  const float* conv_weight;
  std::int64_t conv_weight_stride;
  const float* conv_bias;
  Rows<const float> state;
  Rows<float> final_state;  // other memory: another block may still have to read the initial one
  const std::int64_t* valid;
  Rows<bfloat16> u, z;
  Rows<bfloat16> x;  // or null
  int tokens, tiles_of_lane, tiles;
  int slices;  // of the channels
};

/// A block's share: some tiles, of which the first is only the history of the others where `history` is 1.
struct Walk {
  int first, tiles, history;
  int channel;  // its first

  __device__ explicit Walk(const Operands& op) {
    const std::int64_t runs = gridDim.x / op.slices, run = blockIdx.x / op.slices;
    const int begin = static_cast<int>(run * op.tiles / runs);
    history = begin % op.tiles_of_lane == 0 ? 0 : 1;
    first = begin - history;
    tiles = static_cast<int>((run + 1) * op.tiles / runs) - first;
    channel = static_cast<int>(blockIdx.x) % op.slices * kChannels;
  }
};

/// The channel of a block, from 0 on, that column `column` of the product is, so that a thread's sums in 32
/// columns are of eight neighbours.
__device__ inline int channel_of(int column) {
  return column / 32 * 32 + column % 8 / 2 * 8 + column / 8 % 4 * 2 + column % 2;
}

template <int kSteps>
__device__ inline void load_weight(const Operands& op, int channel, Shared& shared) {
  constexpr int pieces = kSteps * 8;
#pragma unroll 8
  for (int i = static_cast<int>(threadIdx.x); i < 2 * kChannels * pieces; i += kThreads) {
    const int row = i / pieces, piece = i % pieces, input = piece * kPiece;
    const int from = channel + channel_of(row % kChannels);
    uint4 values{};
    if (from < op.channels && input < op.inputs) {
      const std::int64_t output = from + (row < kChannels ? 0 : op.channels);
      values = *reinterpret_cast<const uint4*>(op.weight + output * op.weight_stride + input);
    }
    unsigned char* to = shared.weight[piece / 8] + hopper::swizzled_offset_bytes(row, piece % 8);
    *reinterpret_cast<uint4*>(to) = values;
  }
}

/// A tile of a walk, of kSteps blocks of input.
template <int kSteps>
struct Tile {
  static constexpr int kAhead = kSlots / kSteps;  // tiles that there are slots for

  int number;     // from the walk's first
  int lane, row;  // where it begins

  __device__ Tile(const Operands& op, const Walk& walk, int first)
      : number(first),
        lane((walk.first + first) / op.tiles_of_lane),
        row((walk.first + first) % op.tiles_of_lane * kRows) {}
  __device__ void advance(const Operands& op, int tiles) {
    number += tiles;
    row += tiles * kRows;
    for (; row >= op.tiles_of_lane * kRows; ++lane) row -= op.tiles_of_lane * kRows;
  }
  __device__ int slot(int step) const { return number % kAhead * kSteps + step; }
  /// Of the round through the slots.
  __device__ int parity() const { return number / kAhead % 2; }
};

/// Starts the copy of a step of a tile; by one thread.
template <int kSteps>
__device__ inline void copy_input(const CUtensorMap& map, const Tile<kSteps>& tile, int step,
                                  Shared& shared) {
  const int slot = tile.slot(step);
  shared.filled[slot].arrive_expecting(kBlock_bytes);
  hopper::copy_tile(map, shared.input[slot], shared.filled[slot], step * hopper::kBlockColumns, tile.row,
                    tile.lane);
}

}  // namespace longstrand::cuda::linear_conv
