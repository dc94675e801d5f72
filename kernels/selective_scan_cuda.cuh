// What the scan's kernels share. But for scan_by_moments, a thread owns a channel with kScanStates states in
// registers (backward, half of the states of two) and walks a segment of the sequence; a block holds
// kScanThreads channels of one lane, which read B and C of a tile of tokens from shared memory. More states
// are taken in groups, one launch each: all results but the states are sums over states. The segments of a
// sequence run at the same time: a first kernel finds what state each leaves of none, a second one turns the
// results into the state before every segment (scan_segments_forward), and the last starts from those.
// Forward, a single segment takes the last alone.
//
// "Position" counts the valid tokens of a lane in the order in which the scan walks them; padding follows.
#pragma once

#include "kernels/cuda_math.cuh"
#include "kernels/cuda_rows.cuh"
#include "kernels/selective_scan.hpp"

namespace longstrand::cuda {

constexpr int kScanThreads = 128;
constexpr int kScanStates = 16;
constexpr int kScanTile_tokens = 16;
static_assert(kScanTile_tokens % scan_checkpoint_tokens(DeviceKind::cuda) == 0);

/// Loads that start where they are written: the compiler would move them down to where their values are
/// needed, to save registers, and wait there.
__device__ inline float load_early(const float* x) {
  float value;
  asm volatile("ld.global.f32 %0, [%1];" : "=f"(value) : "l"(x));
  return value;
}
__device__ inline bfloat16 load_early(const bfloat16* x) {
  bfloat16 value;
  asm volatile("ld.global.u16 %0, [%1];" : "=h"(value.bits) : "l"(x));
  return value;
}

/// The operands of SelectiveScanInput, but for the state.
template <class T>
struct ScanOperands {
  Rows<const T> u, dt, b, c, z;
  const float* decay;  // [N, D]
  std::int64_t decay_stride;
  const float* d;             // [D]
  const std::int64_t* valid;  // [B]
  std::int64_t lanes, tokens, channels;
  int states;
  int first_state = 0;  // of the group of kScanStates that a launch takes
  std::int64_t segment_tokens, segments;
  Direction direction;
  bool aligned;  // u, dt and z can be read in pieces of 16 bytes

  explicit ScanOperands(const SelectiveScanInput<T>& input, const Session& session);
};

/// States at the ends of segments, [segments, B, N, D], and sums of dt over them, [segments, B, D].
struct SegmentStates {
  View<float, 4> state;
  View<float, 3> sum_dt;
};

using ScanTile = float[kScanTile_tokens][kScanStates];

/// Which way what the first pass scans runs, along the walk: states forward, their gradients backward.
enum class Pass { forward, backward };

/// Of the first pass, as many as are resident.
constexpr int kScanBlocksOfMultiprocessor = 4;

/// What has decayed to this of itself is forgotten by the first pass: that is far below the rounding of what
/// came later, bfloat16's 2^-9 in one case.
template <class T>
constexpr float kForgotten_log2 = sizeof(T) == sizeof(float) ? -30 : -16;

/// With room for the states where none is given.
template <class T>
SegmentStates take_segments(const ScanOperands<T>& operands, View<float, 4> states, Context& context);

/// The state before every segment, and after the last one into `final`.
template <class T>
void scan_segments_forward(const ScanOperands<T>& operands, View<const float, 3> initial,
                           const SegmentStates& segments, View<float, 3> final, Context& context);
/// Its second half: from the states that the segments leave of none, and sums of dt.
template <class T>
void connect_segments_forward(const ScanOperands<T>& operands, View<const float, 3> initial,
                              const SegmentStates& segments, View<float, 3> final, Context& context);
/// The gradient of the state after every segment, given that of the final state in d_state, which becomes
/// that of the initial state.
template <class T>
void scan_segments_backward(const ScanOperands<T>& operands, Rows<const T> d_out, View<float, 3> d_state,
                            const SegmentStates& segments, Context& context);

/// Their first pass for bfloat16 by another algorithm; d_out is for the backward one. Returns false, with
/// nothing done, where the operands do not lie as it takes them.
bool scan_by_moments(Pass pass, const ScanOperands<bfloat16>& operands, const Rows<const bfloat16>& d_out,
                     const SegmentStates& segments, Context& context);

inline dim3 scan_grid(std::int64_t lanes, std::int64_t channels, std::int64_t segments) {
  return dim3(static_cast<unsigned>(ceil_div(channels, kScanThreads) * segments * lanes));
}

/// How many of the `size` tokens from t0 on lie before `end`.
__device__ inline int tokens_before(std::int64_t end, std::int64_t t0, int size) {
  return static_cast<int>(min(max(end - t0, std::int64_t{0}), std::int64_t{size}));
}

/// Which part of the work a block of scan_grid has: the tokens of a lane from position `begin` on.
struct ScanBlock {
  std::int64_t lane, segment, channel_block, begin;
  int rows, count;     // tokens of the segment, and how many of them are valid
  std::int64_t place;  // of position `begin`; see Rows
  Direction direction;

  /// `number`: of the block in the grid.
  template <class T>
  __device__ explicit ScanBlock(const ScanOperands<T>& in, unsigned number = blockIdx.x)
      : direction(in.direction) {
    const std::int64_t channel_blocks = ceil_div(in.channels, kScanThreads);
    channel_block = number % channel_blocks;
    const std::int64_t rest = number / channel_blocks;
    segment = rest % in.segments;
    lane = rest / in.segments;
    begin = segment * in.segment_tokens;
    rows = tokens_before(in.tokens, begin, static_cast<int>(in.segment_tokens));
    const std::int64_t valid = in.valid[lane];
    count = tokens_before(valid, begin, rows);
    place = first_place(direction, valid) + begin;
  }

  /// Keeps `size` tokens of the segment from its token `first` on.
  __device__ void narrow(int first, int size) {
    begin += first, place += first;
    rows = min(max(rows - first, 0), size);
    count = min(max(count - first, 0), size);
  }

  __device__ std::int64_t first_channel() const { return channel_block * kScanThreads; }
  /// The segment's token i, which is valid.
  template <class E>
  __device__ E* at(const Rows<E>& x, int i, std::int64_t channel) const {
    return x.at(lane, place + i, channel);
  }
  /// The same of padding, which stays where it is.
  template <class E>
  __device__ E* padding_at(const Rows<E>& x, int i, std::int64_t channel) const {
    return x.at(lane, place_of_row(direction, begin + i), channel);
  }
};

/// kCount neighbouring states of a row of B or C in shared memory, the same for threads side by side: vector
/// loads, one transaction each.
template <int kCount>
__device__ inline void read_states(const float* from, float (&to)[kCount]) {
#pragma unroll
  for (int n = 0; n < kCount; n += 4) {
    const float4 quad = *reinterpret_cast<const float4*>(from + n);
    to[n] = quad.x, to[n + 1] = quad.y, to[n + 2] = quad.z, to[n + 3] = quad.w;
  }
}

/// Brings tiles of kOperands operands, a column a thread, and of kCoefficients of B and C into shared memory,
/// one tile ahead of its use.
template <class T, int kOperands, int kCoefficients>
class TileLoader {
 public:
  struct Shared {
    T operand[2][kOperands][kScanTile_tokens][kScanThreads];
    ScanTile coefficient[kCoefficients];
  };

  __device__ TileLoader(Shared& shared, std::int64_t first_channel, std::int64_t channels, bool aligned)
      : shared_(shared),
        channels_(static_cast<int>(min(channels - first_channel, std::int64_t{kScanThreads}))),
        aligned_(aligned) {}

  /// `rows`: the operand's row for the first token, first channel of the block; `stride` from token to token
  /// in the order in which they are read.
  __device__ void set_operand(int i, const T* rows, std::int64_t stride) {
    operand_[i] =
        rows + (aligned_ ? threadIdx.x / kPieces * stride + threadIdx.x % kPieces * kPiece : threadIdx.x);
    operand_stride_[i] = stride;
  }
  /// `rows`: the group's first state for the first token.
  __device__ void set_coefficient(int i, const T* rows, std::int64_t stride, int states) {
    coefficient_[i] = rows + threadIdx.x / kScanStates * stride + threadIdx.x % kScanStates;
    coefficient_stride_[i] = stride, states_ = states;
  }

  /// Starts to load the next tile, of which `count` tokens exist, into buffer `parity`.
  __device__ void start(int count, int parity) {
#pragma unroll
    for (int i = 0; i < kOperands; ++i) start_operand(i, count, parity);
    asm volatile("cp.async.commit_group;");
    const int t = static_cast<int>(threadIdx.x) / kScanStates,
              n = static_cast<int>(threadIdx.x) % kScanStates;
#pragma unroll
    for (int i = 0; i < kCoefficients; ++i) {
#pragma unroll
      for (int pass = 0; pass < kPasses; ++pass) {
        const bool exists = pass * kRowsOfPass + t < count && n < states_;
        next_[i][pass] = exists ? load_early(coefficient_[i]) : from_float<T>(0.0F);
        coefficient_[i] += kRowsOfPass * coefficient_stride_[i];
      }
    }
  }

  /// Makes the tile that was started last the one that is read; all threads of the block.
  __device__ void finish() {
    __syncthreads();  // the tile before has been read
    publish();
  }
  /// The same if any thread wants the tile; else false.
  __device__ bool finish_if(bool wanted) {
    const bool any = __syncthreads_or(wanted) != 0;
    if (any) publish();
    return any;
  }

  /// 0 where the tile has no such row or channel.
  __device__ float operand(int i, int t, int column, int parity) const {
    return to_float(shared_.operand[parity][i][t][column]);
  }
  /// The thread's column.
  __device__ float operand(int i, int t, int parity) const {
    return operand(i, t, static_cast<int>(threadIdx.x), parity);
  }
  /// kCount of B or C's row from `first` on.
  template <int kCount>
  __device__ void read_coefficients(int i, int t, int first, float (&to)[kCount]) const {
    read_states(shared_.coefficient[i][t] + first, to);
  }
  __device__ void read_coefficients(int i, int t, float (&to)[kScanStates]) const {
    read_coefficients(i, t, 0, to);
  }
  /// Waits for what has been started and is not needed.
  __device__ void drain() const { asm volatile("cp.async.wait_all;"); }

 private:
  static constexpr int kPiece = 16 / sizeof(T);          // of an operand, what a thread copies at a time
  static constexpr int kPieces = kScanThreads / kPiece;  // of a row
  static constexpr int kRows = kScanThreads / kPieces;   // at a time
  static constexpr int kRowsOfPass = kScanThreads / kScanStates;  // of coefficients
  static constexpr int kPasses = kScanTile_tokens / kRowsOfPass;

  __device__ void publish() {
    const int t = static_cast<int>(threadIdx.x) / kScanStates,
              n = static_cast<int>(threadIdx.x) % kScanStates;
#pragma unroll
    for (int i = 0; i < kCoefficients; ++i) {
#pragma unroll
      for (int pass = 0; pass < kPasses; ++pass)
        shared_.coefficient[i][pass * kRowsOfPass + t][n] = to_float(next_[i][pass]);
    }
    asm volatile("cp.async.wait_group 0;");
    __syncthreads();
  }

  __device__ void start_operand(int i, int count, int parity) {
    if (!aligned_) {
      const bool exists = static_cast<int>(threadIdx.x) < channels_;
      for (int t = 0; t < kScanTile_tokens; ++t) {
        shared_.operand[parity][i][t][threadIdx.x] =
            exists && t < count ? operand_[i][t * operand_stride_[i]] : from_float<T>(0.0F);
      }
      operand_[i] += kScanTile_tokens * operand_stride_[i];
      return;
    }
    const int column = static_cast<int>(threadIdx.x) % kPieces * kPiece;
#pragma unroll
    for (int begin = 0; begin < kScanTile_tokens; begin += kRows) {
      const int t = begin + static_cast<int>(threadIdx.x) / kPieces;
      const unsigned to = shared_address(&shared_.operand[parity][i][t][column]);
      const int bytes = t < count && column < channels_ ? 16 : 0;  // the rest becomes zero
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(operand_[i]), "r"(bytes));
      operand_[i] += kRows * operand_stride_[i];
    }
  }

  Shared& shared_;
  const T* operand_[kOperands];  // the thread's place in the next tile, as below
  std::int64_t operand_stride_[kOperands];
  const T* coefficient_[kCoefficients];
  std::int64_t coefficient_stride_[kCoefficients];
  T next_[kCoefficients][kPasses];  // converted when it is needed: until then nothing waits for it
  int channels_;
  int states_ = 0;
  bool aligned_;
};

/// A channel's decay in the group's states; 0 where there are none: such states stay 0.
template <class T>
__device__ inline void read_decay(const ScanOperands<T>& in, std::int64_t column,
                                  float (&decay)[kScanStates]) {
#pragma unroll
  for (int n = 0; n < kScanStates; ++n) {
    const int state = in.first_state + n;
    decay[n] = state < in.states ? in.decay[state * in.decay_stride + column] : 0.0F;
  }
}

// A checkpoint of a group of states in bfloat16: rows of two neighbouring ones each, the first in the lower
// half of a word, then a row of their unit, a power of two. A state is its half less 2^15, in units. A
// group's rows follow those that the states before it have (scan_checkpoint_rows).

constexpr float kPackedZero = 32768;

/// Of states of which the largest has this magnitude.
__device__ inline float packed_unit(float largest) {
  // A little more, so that the largest one is not rounded to 2^15 units.
  const std::uint32_t bits = __float_as_uint(fmaxf(largest, 1e-30F) * 1.0001F);
  const float unit = __uint_as_float(bits & 0x7F800000U) * 0x1p-14F;
  return largest == largest ? unit : largest;
}
/// `units`: 1 / unit.
__device__ inline std::uint32_t pack_states(float first, float second, float units) {
  constexpr float kRounds = 0x1.8p23F + kPackedZero;  // leaves integers in the lower half
  return __byte_perm(__float_as_uint(fmaf(first, units, kRounds)),
                     __float_as_uint(fmaf(second, units, kRounds)), 0x5410);
}
__device__ inline void unpack_states(std::uint32_t word, float unit, float& first, float& second) {
  constexpr std::uint32_t kInteger = 0x4B000000;       // 2^23
  const float zero = -(0x1p23F + kPackedZero) * unit;  // exact, as is what follows
  first = fmaf(__uint_as_float(__byte_perm(word, kInteger, 0x7410)), unit, zero);
  second = fmaf(__uint_as_float(__byte_perm(word, kInteger, 0x7432)), unit, zero);
}

/// Calls `launch` for every group of states.
template <class T, class Launch>
void for_each_state_group(ScanOperands<T> operands, Launch launch) {
  for (operands.first_state = 0; operands.first_state < operands.states;
       operands.first_state += kScanStates) {
    launch(static_cast<const ScanOperands<T>&>(operands));
  }
}

}  // namespace longstrand::cuda
