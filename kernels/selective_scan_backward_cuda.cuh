// What the scan's backward kernel does for each token and channel without its states: operands come in and
// gradients go out, a tile of tokens at a time. A warp loads and stores its own 32 channels; a thread
// prepares those of the number it has in the warp. Only B and C are loaded by the whole block.
#pragma once

#include "kernels/cuda_packet.cuh"
#include "kernels/selective_scan_cuda.cuh"

namespace longstrand::cuda {

constexpr int kBackwardTile_tokens = scan_checkpoint_tokens(DeviceKind::cuda);
constexpr int kScanWarps = kScanThreads / 32;
constexpr int kScanSums = 2 * kScanStates;  // over channels: of dB and dC, side by side

// What a thread has: half of the states of two channels.
constexpr int kPair = 2;
constexpr int kHalf = kScanStates / 2;
constexpr int kHalfWarp = 32 / kPair;    // threads with the same states
using PairValues = float[kPair][kHalf];  // by channel, the thread's own first, and state

template <class T>
struct BackwardResults {
  Rows<const T> d_out;
  Rows<T> d_u, d_delta, d_z;
  bool in_packets;           // whether their rows hold packets, of which their channels are a multiple
  const float* checkpoints;  // [count, B, rows, D]; strides follow
  std::int64_t checkpoint_stride, checkpoint_lane_stride;
  int checkpoint_row_bytes;    // rows of all tensors are shorter than 2^31 bytes
  const float* d_state_after;  // [segments, B, N, D]
  float* d_b_and_c;            // [channel blocks, B, T, kScanSums]  by position
  float* d_a_log;              // [segments * B, D, the group's states]
  float* d_d;                  // [segments * B, D]
  float* d_delta_bias;         // [segments * B, D]
};

/// Of a warp's tile, by token and channel. What only the channel's thread reads it later overwrites.
struct BackwardScalars {
  float2 dt_and_dt_u[kBackwardTile_tokens][32];
  float d_y[kBackwardTile_tokens][32];
  float2 own[kBackwardTile_tokens][32];   // u, d dt / d delta; then d_u, d_delta
  float own_z[kBackwardTile_tokens][32];  // d_z / y; then d_z
};

template <class T>
class BackwardTile {
 public:
  static constexpr int kTokens = kBackwardTile_tokens;
  enum Operand { kDt, kU, kZ, kDOut, kOperands, kDU = kOperands, kDDelta, kDZ, kB, kC, kRowKinds };

  struct Shared {
    T operand[kScanWarps][kOperands][kTokens][32];  // of the next tile
    float coefficient[2][2][kTokens][kScanStates];  // by parity of the tile: B, C
    BackwardScalars scalars[kScanWarps];
    // Where the row of the segment's first token begins in each tensor, at the block's first channel or the
    // group's first state: kept here to spare registers.
    std::int64_t row_of[kRowKinds];
  };

  /// All threads of the block; the constructor ends at a barrier.
  __device__ BackwardTile(const ScanOperands<T>& in, const BackwardResults<T>& results,
                          const ScanBlock& block, Shared& shared)
      : in_(in),
        out_(results),
        shared_(shared),
        count_(block.count),
        warp_(static_cast<int>(threadIdx.x) / 32),
        thread_(static_cast<int>(threadIdx.x) % 32),
        channels_(static_cast<int>(min(in.channels - block.first_channel() - warp_ * 32, std::int64_t{32}))) {
    if (threadIdx.x == 0) {
      const auto keep_row = [&](Operand i, const auto& x, std::int64_t column) {
        shared.row_of[i] = block.at(x, 0, column) - x.data;
      };
      const std::int64_t channel = block.first_channel();
      keep_row(kDt, in.dt, channel);
      keep_row(kU, in.u, channel);
      keep_row(kZ, in.z, channel);
      keep_row(kDOut, results.d_out, channel);
      keep_row(kDU, results.d_u, channel);
      keep_row(kDDelta, results.d_delta, channel);
      keep_row(kDZ, results.d_z, channel);
      keep_row(kB, in.b, in.first_state);
      keep_row(kC, in.c, in.first_state);
    }
    __syncthreads();
  }

  /// Starts to load the operands of the tile that begins with the segment's token `first`. The threads of the
  /// warp have prepared the tile before.
  __device__ void start_operands(int first) {
    if (!in_.aligned) {
      copy_operand(kDt, in_.dt, first);
      copy_operand(kU, in_.u, first);
      copy_operand(kZ, in_.z, first);
      copy_operand(kDOut, out_.d_out, first);
      return;
    }
    constexpr int kPiece = 16 / sizeof(T);
    constexpr int kPieces = 32 / kPiece;  // of a row
    const int column = thread_ % kPieces * kPiece;
    const unsigned place = shared_address(shared_.operand[warp_]) + thread_ * 16;
#pragma unroll
    for (int t = 0; t < kTokens; t += 32 / kPieces) {
      const int token = first + t + thread_ / kPieces;
      const int bytes = token < count_ && has(column) ? 16 : 0;  // the rest becomes zero
      const T* const from[kOperands] = {at(kDt, in_.dt, token, column), at(kU, in_.u, token, column),
                                        at(kZ, in_.z, token, column), at(kDOut, out_.d_out, token, column)};
#pragma unroll
      for (int i = 0; i < kOperands; ++i) {
        const auto to = place + static_cast<unsigned>((i * kTokens + t) * 32 * sizeof(T));
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from[i]), "r"(bytes));
      }
    }
  }

  /// Turns the operands that were started last into scalars. Tokens that do not exist are steps of no length.
  __device__ void prepare() const {
    asm volatile("cp.async.wait_all;");
    __syncwarp();
    BackwardScalars& to = scalars();
    const auto& operand = shared_.operand[warp_];
    float dt[kTokens], u[kTokens], z[kTokens], d_out[kTokens];
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {  // before the stores, past which the compiler would not move them
      dt[t] = to_float(operand[kDt][t][thread_]), u[t] = to_float(operand[kU][t][thread_]);
      z[t] = to_float(operand[kZ][t][thread_]), d_out[t] = to_float(operand[kDOut][t][thread_]);
    }
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      const float gate = sigmoid(z[t]), d_gated = d_out[t] * gate;
      to.dt_and_dt_u[t][thread_] = {dt[t], dt[t] * u[t]};
      to.d_y[t][thread_] = d_gated * z[t];
      to.own[t][thread_] = {u[t], one_minus_exp(dt[t])};
      to.own_z[t][thread_] = fmaf(d_gated * z[t], 1 - gate, d_gated);
    }
    __syncwarp();
  }

  /// Starts to load B and C of the tile that begins with token `first`.
  __device__ void load_coefficients(int first) {
    next_b_ = load_coefficient(kB, in_.b, first);
    next_c_ = load_coefficient(kC, in_.c, first);
  }
  /// Makes them readable after the block's next barrier.
  __device__ void publish_coefficients(int parity) const {
    (&shared_.coefficient[parity][0][0][0])[threadIdx.x] = to_float(next_b_);
    (&shared_.coefficient[parity][1][0][0])[threadIdx.x] = to_float(next_c_);
  }
  /// kCount of token t's B (i = 0) or C (1) from state `first` of the group on.
  template <int kCount>
  __device__ void read_coefficients(int parity, int i, int t, int first, float (&to)[kCount]) const {
    read_states(shared_.coefficient[parity][i][t] + first, to);
  }

  /// Whether there is such a channel of the warp.
  __device__ bool has(int column) const { return column < channels_; }
  __device__ BackwardScalars& scalars() const { return shared_.scalars[warp_]; }

  /// d_u, d_delta and d_z of the tile, which all threads of the warp have put into scalars().
  template <bool kFirstGroup>
  __device__ void store_results(int first) const {
    const int tokens = min(count_ - first, kTokens);
    if (!kFirstGroup || !out_.in_packets) {
      add_results<kFirstGroup>(first, tokens);
      return;
    }
    const BackwardScalars& from = scalars();
    constexpr int kPackets = 32 / kPacket;  // of a row
    const int column = thread_ % kPackets * kPacket;
#pragma unroll
    for (int begin = 0; begin < kTokens; begin += 32 / kPackets) {
      const int t = begin + thread_ / kPackets;
      if (t >= tokens || !has(column)) continue;
      T* const d_u_place = at(kDU, out_.d_u, first + t, column);
      T* const d_delta_place = at(kDDelta, out_.d_delta, first + t, column);
      T* const d_z_place = at(kDZ, out_.d_z, first + t, column);
      float d_u[kPacket], d_delta[kPacket], d_z[kPacket];
#pragma unroll
      for (int i = 0; i < kPacket; ++i) {
        const float2 own = from.own[t][column + i];
        d_u[i] = own.x, d_delta[i] = own.y, d_z[i] = from.own_z[t][column + i];
      }
      store<kPacket>(d_u, d_u_place);
      store<kPacket>(d_delta, d_delta_place);
      store<kPacket>(d_z, d_z_place);
    }
  }

 private:
  /// In the row of a token of the segment, the warp's channel (or, of B and C, the group's state) `column`.
  template <class E>
  __device__ E* at(Operand i, const Rows<E>& x, int token, int column) const {
    const unsigned in_row = i == kB || i == kC ? column : warp_ * 32 + column;
    return x.data + (shared_.row_of[i] + (std::int64_t{token} * static_cast<int>(x.place_stride) + in_row));
  }

  /// The slow way, of rows that are not aligned.
  __device__ void copy_operand(Operand i, const Rows<const T>& x, int first) const {
#pragma unroll 1
    for (int t = 0; t < kTokens; ++t) {
      const bool exists = first + t < count_ && has(thread_);
      shared_.operand[warp_][i][t][thread_] = exists ? *at(i, x, first + t, thread_) : from_float<T>(0.0F);
    }
  }

  __device__ T load_coefficient(Operand i, const Rows<const T>& x, int first) const {
    static_assert(kTokens * kScanStates == kScanThreads);
    const int token = first + static_cast<int>(threadIdx.x) / kScanStates;
    const int n = static_cast<int>(threadIdx.x) % kScanStates;
    const bool exists = token < count_ && n < in_.states - in_.first_state;
    return exists ? load_early(at(i, x, token, n)) : from_float<T>(0.0F);
  }

  /// The slow way: rows that do not hold packets, and groups of states after the first.
  template <bool kFirstGroup>
  __device__ void add_results(int first, int tokens) const {
    if (!has(thread_)) return;
    const auto add = [](T* place, float value) {
      *place = from_float<T>(kFirstGroup ? value : to_float(*place) + value);
    };
#pragma unroll 1
    for (int t = 0; t < tokens; ++t) {
      const float2 own = scalars().own[t][thread_];
      add(at(kDU, out_.d_u, first + t, thread_), own.x);
      add(at(kDDelta, out_.d_delta, first + t, thread_), own.y);
      add(at(kDZ, out_.d_z, first + t, thread_), scalars().own_z[t][thread_]);
    }
  }

  const ScanOperands<T>& in_;
  const BackwardResults<T>& out_;
  Shared& shared_;
  const int count_;          // of the segment's valid tokens
  const int warp_, thread_;  // of the block, of the warp
  const int channels_;       // from the warp's first one on; none if negative
  T next_b_, next_c_;        // converted when needed: until then nothing waits for them
};

/// A place for PairValues of every thread and token of the tile: of the state before the token, then of the
/// token's terms of dB (in place of a first channel) and dC; and their sums over the block's channels.
class BackwardSlots {
 public:
  static constexpr int kTokens = kBackwardTile_tokens;
  static constexpr int kQuads = kPair * kHalf / 4;

  struct Shared {
    float4 slot[kScanWarps][kTokens][kQuads][32];   // by thread last: without bank conflicts
    float sums[2][kScanWarps][kTokens][kScanSums];  // by parity of the tile
  };

  __device__ explicit BackwardSlots(Shared& shared)
      : shared_(shared),
        warp_(static_cast<int>(threadIdx.x) / 32),
        thread_(static_cast<int>(threadIdx.x) % 32) {}

  __device__ void write(int t, const PairValues& values) const {
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      const float* const v = &values[q / 2][q % 2 * 4];
      shared_.slot[warp_][t][q][thread_] = {v[0], v[1], v[2], v[3]};
    }
  }
  __device__ void read(int t, PairValues& values) const {
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      const float4 quad = shared_.slot[warp_][t][q][thread_];
      float* const v = &values[q / 2][q % 2 * 4];
      v[0] = quad.x, v[1] = quad.y, v[2] = quad.z, v[3] = quad.w;
    }
  }

  /// Adds up the tile's terms, which all threads of the warp have written, over those with the same states. A
  /// thread takes a quad of a half in every fourth token, and the threads in an order of its own that spares
  /// bank conflicts.
  __device__ void add_terms(int parity) const {
    static_assert(kQuads == 4 && kHalfWarp == 16);
    const int quad = thread_ % kQuads, half = thread_ / kQuads % 2, token = thread_ / 8;
    const int column = quad / 2 * kScanStates + half * kHalf + quad % 2 * 4;
    const float4* from[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      from[i] = &shared_.slot[warp_][token][quad][half * kHalfWarp + (i ^ thread_ % 8)];
    }
#pragma unroll
    for (int pass = 0; pass < kTokens / 4; ++pass) {
      float4 value[kHalfWarp];
#pragma unroll
      for (int i = 0; i < kHalfWarp; ++i) value[i] = from[i % 8][pass * 4 * kQuads * 32 + i / 8 * 8];
#pragma unroll
      for (int i = 1; i < kHalfWarp; ++i) {
        value[0].x += value[i].x, value[0].y += value[i].y;
        value[0].z += value[i].z, value[0].w += value[i].w;
      }
      *reinterpret_cast<float4*>(&shared_.sums[parity][warp_][pass * 4 + token][column]) = value[0];
    }
  }

  /// The sums over all warps, a barrier after add_terms, of the tile's tokens, of which `tokens` are left.
  __device__ void store_sums(int parity, float* to, int tokens) const {
#pragma unroll
    for (int begin = 0; begin < kTokens * kScanSums; begin += kScanThreads) {
      const int i = begin + static_cast<int>(threadIdx.x);
      if (i / kScanSums >= tokens) break;
      float sum = 0;
#pragma unroll
      for (int warp = 0; warp < kScanWarps; ++warp) sum += (&shared_.sums[parity][warp][0][0])[i];
      to[i] = sum;
    }
  }

 private:
  Shared& shared_;
  const int warp_, thread_;
};

}  // namespace longstrand::cuda
