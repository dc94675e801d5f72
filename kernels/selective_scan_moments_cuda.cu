// The first pass over the segments for bfloat16, by tensor cores. What a token adds to the state at the
// segment's end is its source times B_n, weighted by the decay over the distance to there, in sums of dt.
// Within a tile of tokens a slow state's weight is, but for a factor of the tile, a cubic of the distance x
// from the tile's centre:
//
//   sum_t 2^(a (d + x_t)) source_t B_n,t  =  2^(a d) sum_k (ln 2 a)^k c_k sum_t x_t^k source_t B_n,t
//
// so that a tile costs one exponential a channel and state instead of one a token as well, and the inner
// sums are products of matrices, [channels and k, tokens] by [tokens, states]. A state that decays too much
// for that within a tile is forgotten within a few: until then its tile is taken in halves with more terms,
// and where these are too long as well, token by token.
#include "kernels/cuda_mma.cuh"
#include "kernels/cuda_packet.cuh"
#include "kernels/selective_scan_cuda.cuh"

namespace longstrand::cuda {
namespace {

constexpr int kTile = 16;      // tokens
constexpr int kChannels = 16;  // of a group, whose products a warp makes at a time
constexpr int kGroups = 2;     // of a warp
constexpr int kWarpChannels = kGroups * kChannels;
constexpr int kThreads = kScanThreads / kWarpChannels * 32;
constexpr int kStages = 3;  // tiles in shared memory, those under way among them

/// Of exp(y), for a part of so many tokens: right to 0.0009 for |y| up to kReach (of itself where it is above
/// 1), half of what bfloat16 rounds by. The first terms are 1 and y; every other one is that before it times
/// factor() y, given in pairs of bfloat16.
template <int kTokens>
struct Expansion;
template <>
struct Expansion<16> {
  static constexpr int kTerms = 4;
  static constexpr float kReach = 0.6F;
  __device__ static constexpr std::uint32_t factor(int term) {
    return term == 2 ? 0x3f033f03 : 0x3ea83ea8;  // 0.5117, 0.3281
  }
};
template <>
struct Expansion<8> {
  static constexpr int kTerms = 6;
  static constexpr float kReach = 1.5F;
  __device__ static constexpr std::uint32_t factor(int term) {
    return term == 2   ? 0x3eff3eff   // 0.4980
           : term == 3 ? 0x3eac3eac   // 0.3359
           : term == 4 ? 0x3e8c3e8c   // 0.2734
                       : 0x3e3d3e3d;  // 0.1846
  }
};

constexpr std::uint32_t kHalf = 0x3f00U, kMinusHalf = 0xbf00U;  // of bfloat16
constexpr std::uint32_t kHalves = kHalf << 16 | kHalf, kMinusHalves = kMinusHalf << 16 | kMinusHalf;

template <Pass kPass>
struct Stage {
  static constexpr int kOperands = kPass == Pass::forward ? 2 : 3;
  // Rows of 80 and 48 bytes: eight neighbours lie in different banks.
  bfloat16 operand[kOperands][kTile][kWarpChannels + 8];
  bfloat16 coefficient[kTile][kScanStates + 8];
};

template <Pass kPass>
struct Shared {
  alignas(16) Stage<kPass> stage[kThreads / 32][kStages];
};

/// a b + c of pairs of bfloat16, rounded once.
__device__ inline std::uint32_t multiply_add_pairs(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  std::uint32_t result;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
  return result;
}
__device__ inline std::uint32_t multiply_pairs(std::uint32_t a, std::uint32_t b) {
  return multiply_add_pairs(a, b, 0x80008000U);
}

/// Four matrices of 8 rows and 8 columns, transposed: of matrix i, a thread of the warp gives the row
/// threadIdx % 8 of matrix threadIdx / 8, and gets in pair[i] rows 2 q and 2 q + 1 of column g.
__device__ inline void load_transposed(unsigned row, std::uint32_t (&pair)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(pair[0]), "=r"(pair[1]), "=r"(pair[2]), "=r"(pair[3])
               : "r"(row)
               : "memory");
}

/// The first two of them.
__device__ inline void load_transposed(unsigned row, std::uint32_t (&pair)[2]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(pair[0]), "=r"(pair[1])
               : "r"(row)
               : "memory");
}

/// Starts to copy kBytes, or to write as many zeros.
template <int kBytes>
__device__ inline void copy_early(const bfloat16* from, unsigned to, bool exists) {
  const int bytes = exists ? kBytes : 0;
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
  } else {
    asm volatile("cp.async.ca.shared.global.L2::128B [%0], [%1], %3, %2;" ::"r"(to), "l"(from), "r"(bytes),
                 "n"(kBytes));
  }
}

/// Has `x` kept in a register, where the compiler would rather make it again.
__device__ inline void keep(std::uint32_t& x) { x = __shfl_sync(~0U, x, threadIdx.x % 32); }

/// Brings a warp's tiles into its stages, in pieces of 8 channels and of 4 states: a thread has piece
/// threadIdx % 4 of rows threadIdx / 4 and 8 further. In place of channels and states that do not exist come
/// others; tokens that do not exist are zero.
template <Pass kPass>
class WarpLoader {
 public:
  using Tile = Stage<kPass>;

  __device__ WarpLoader(Tile* stages, int tokens)
      : operand_to_(shared_address(&stages->operand[0][row()][piece() * 8])),
        coefficient_to_(shared_address(&stages->coefficient[row()][piece() * 4])),
        left_(tokens - row()) {
    keep(operand_to_), keep(coefficient_to_);
  }

  /// `rows`: the token that is taken first; `stride` to the one taken next; `columns`: how many exist.
  __device__ void set_operand(int i, const bfloat16* rows, std::int64_t stride, int columns) {
    operand_[i] = rows + row() * stride + min(piece() * 8, columns - 8), stride_[i] = stride;
  }
  __device__ void set_coefficient(const bfloat16* rows, std::int64_t stride, int columns) {
    coefficient_ = rows + row() * stride + min(piece() * 4, columns - 4), coefficient_stride_ = stride;
  }

  /// Starts to load the next tile, which may lie past the last one.
  __device__ void start() {
#pragma unroll
    for (int i = 0; i < Tile::kOperands; ++i) {
      const unsigned to = operand_to_ + filled_ + i * static_cast<int>(sizeof(Tile::operand[0]));
      copy_early<16>(operand_[i], to, left_ > 0);
      copy_early<16>(operand_[i] + 8 * stride_[i], to + 8 * sizeof(Tile::operand[0][0]), left_ > 8);
      operand_[i] += kTile * stride_[i];
    }
    const unsigned to = coefficient_to_ + filled_;
    copy_early<8>(coefficient_, to, left_ > 0);
    copy_early<8>(coefficient_ + 8 * coefficient_stride_, to + 8 * sizeof(Tile::coefficient[0]), left_ > 8);
    coefficient_ += kTile * coefficient_stride_;
    left_ -= kTile;
    filled_ = after(filled_);
    asm volatile("cp.async.commit_group;");
  }
  /// Waits for the tile after the one before, and gives its place behind the first stage.
  __device__ unsigned finish() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2) : "memory");
    __syncwarp();
    const unsigned tile = read_;
    read_ = after(read_);
    return tile;
  }

 private:
  __device__ static int row() { return static_cast<int>(threadIdx.x % 32 / 4); }
  __device__ static int piece() { return static_cast<int>(threadIdx.x % 4); }
  __device__ static unsigned after(unsigned stage) {
    return stage == (kStages - 1) * sizeof(Tile) ? 0 : stage + sizeof(Tile);
  }

  unsigned operand_to_, coefficient_to_;  // places in the first stage
  const bfloat16 *operand_[Tile::kOperands], *coefficient_;
  std::int64_t stride_[Tile::kOperands], coefficient_stride_;
  int left_;  // rows from the thread's first one on
  unsigned filled_ = 0, read_ = 0;
};

/// For the distances of 8 tokens from their centre: with dt as A and this as B, each is half of what comes
/// before it less half of what follows. The tokens are in the order in which they are taken; the distance
/// ends before a token (forward) or with it.
template <Pass kPass>
__device__ inline std::uint32_t make_centring() {
  const int g = static_cast<int>(threadIdx.x % 32 / 4), q = static_cast<int>(threadIdx.x % 4);
  std::uint32_t pair = 0;
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const bool before = kPass == Pass::forward ? q * 2 + j < g : q * 2 + j <= g;
    pair |= (before ? kHalf : kMinusHalf) << 16 * j;
  }
  return pair;
}

/// 16 channels. Of channels g and g + 8 a thread has states 2 q, 2 q + 1 and those 8 further, as products
/// have them (cuda_mma.cuh).
template <Pass kPass>
class ChannelGroup {
 public:
  using Tile = Stage<kPass>;

  /// `channel`: the first.
  __device__ void start(const ScanOperands<bfloat16>& in, std::int64_t channel) {
    for_each_value([&](float&, float& decay, int row, int n) {
      const int state = in.first_state + n;
      const std::int64_t d = channel + row * 8 + g();
      const bool exists = d < in.channels && state < in.states;
      decay = exists ? in.decay[state * in.decay_stride + d] * kLn2 : -1e30F;  // forgets at once
      if (exists) fastest_[row] = fminf(fastest_[row], decay);
    });
  }

  /// Whether a token further away adds anything to any state.
  __device__ bool matters() const {
    bool any = false;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) any = any | decay_[j][i] * total_dt_[i / 2] > kForgotten;
    }
    return __any_sync(~0U, any) != 0;
  }

  /// `tile`: what load_transposed takes for the group's first operand; `coefficients`: B or C.
  __device__ __forceinline__ void add(unsigned tile, const Tile& stage, int column,
                                      const std::uint32_t (&coefficients)[4], std::uint32_t centring) {
    std::uint32_t dt[4];
    load_transposed(tile, dt);
    if (add_part(tile, dt, coefficients, centring)) return;
#pragma unroll 1
    for (int half = 0; half < 2; ++half) {
      const auto pick = [&](std::uint32_t first, std::uint32_t second) { return half == 0 ? first : second; };
      const std::uint32_t dt_of_half[2] = {pick(dt[0], dt[2]), pick(dt[1], dt[3])};
      const std::uint32_t of_half[2] = {pick(coefficients[0], coefficients[1]),
                                        pick(coefficients[2], coefficients[3])};
      constexpr int kTokens = kTile / 2;
      if (!add_part(tile + half * kTokens * sizeof(Tile::operand[0][0]), dt_of_half, of_half, centring)) {
        add_tokens(stage, column, half * kTokens, kTokens);
      }
    }
  }

  __device__ void store(const ScanOperands<bfloat16>& in, std::int64_t channel, std::int64_t row_of_states,
                        float* state, float* sum_dt) {
    for_each_value([&](float& h, float&, int row, int n) {
      const std::int64_t d = channel + row * 8 + g();
      if (d >= in.channels || in.first_state + n >= in.states) return;
      state[(row_of_states * in.states + in.first_state + n) * in.channels + d] = h;
    });
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const std::int64_t d = channel + i * 8 + g();
      if (q() != 0 || d >= in.channels) continue;
      // Of several groups of states, the one that forgets last has seen most.
      float& sum = sum_dt[row_of_states * in.channels + d];
      sum = in.first_state == 0 ? total_dt_[i] : fmaxf(sum, total_dt_[i]);
    }
  }

 private:
  static constexpr bool kForward = kPass == Pass::forward;
  static constexpr float kForgotten = kForgotten_log2<bfloat16> * kLn2;

  __device__ static int g() { return static_cast<int>(threadIdx.x % 32 / 4); }
  __device__ static int q() { return static_cast<int>(threadIdx.x % 4); }

  /// Calls use(h, decay, which of the two channels, state of the group) for all that the thread has.
  template <class Use>
  __device__ void for_each_value(Use use) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) use(h_[j][i], decay_[j][i], i / 2, j * 8 + q() * 2 + i % 2);
    }
  }

  /// Adds a part of 4 kRegisters tokens, unless a state that still matters decays too much from its centre to
  /// its ends: then false.
  template <int kRegisters>
  __device__ __forceinline__ bool add_part(unsigned tile, const std::uint32_t (&dt)[kRegisters],
                                           const std::uint32_t (&coefficients)[kRegisters],
                                           std::uint32_t centring) {
    using Terms = Expansion<kRegisters * 4>;
    float half[4] = {};  // of the sum of dt, for each channel twice
    multiply_add(half, dt, kHalves, kHalves);
    const auto too_long = [&](int channel) {
      constexpr float kForgotten_halves = -kForgotten / Terms::kReach, kOverflow = 1e6F;
      const float of_half = half[channel * 2] * fastest_[channel];
      const bool matters = half[channel * 2] * kForgotten_halves > total_dt_[channel];
      return (of_half < -Terms::kReach) & (matters | of_half < -kOverflow);
    };
    if (__any_sync(~0U, too_long(0) | too_long(1)) != 0) return false;

    std::uint32_t source[Terms::kTerms][kRegisters], rest[kRegisters];
    set_sources(tile, dt, source[0], rest);
#pragma unroll
    for (int i = 0; i < kRegisters; i += 2) {
      float distance[4] = {};
      multiply_add(distance, dt, i == 0 ? centring : kHalves, i == 0 ? kMinusHalves : centring);
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const std::uint32_t y = round_pair(distance[2 * row], distance[2 * row + 1]);
        source[1][i + row] = multiply_pairs(source[0][i + row], y);
#pragma unroll
        for (int k = 2; k < Terms::kTerms; ++k) {
          source[k][i + row] = multiply_pairs(source[k - 1][i + row], multiply_pairs(y, Terms::factor(k)));
        }
      }
    }
    const float centre_log2[2] = {(total_dt_[0] + half[0]) * kLog2E, (total_dt_[1] + half[2]) * kLog2E};
    total_dt_[0] = fmaf(2.0F, half[0], total_dt_[0]);
    total_dt_[1] = fmaf(2.0F, half[2], total_dt_[1]);
#pragma unroll
    for (int j = 0; j < 2; ++j) {  // the thread's first two states, the other two
      const std::uint32_t b0 = coefficients[j * kRegisters / 2],
                          b1 = coefficients[(j + 1) * kRegisters / 2 - 1];
      float moment[Terms::kTerms][4] = {};
#pragma unroll
      for (int k = 0; k < Terms::kTerms; ++k) multiply_add(moment[k], source[k], b0, b1);
      multiply_add(moment[0], rest, b0, b1);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float decay = decay_[j][i];
        float sum = moment[Terms::kTerms - 1][i];
#pragma unroll
        for (int k = Terms::kTerms - 2; k >= 0; --k) sum = fmaf(sum, decay, moment[k][i]);
        h_[j][i] = fmaf(exp2_approx(centre_log2[i / 2] * decay), sum, h_[j][i]);
      }
    }
    return true;
  }

  /// What the tokens add at their own place, rounded, and what rounding leaves.
  template <int kRegisters>
  __device__ __forceinline__ static void set_sources(unsigned tile, const std::uint32_t (&dt)[kRegisters],
                                                     std::uint32_t (&source)[kRegisters],
                                                     std::uint32_t (&rest)[kRegisters]) {
    std::uint32_t x[kRegisters];
    load_transposed(tile + sizeof(Tile::operand[0]), x);
    if constexpr (kForward) {
#pragma unroll
      for (int i = 0; i < kRegisters; ++i) {
        source[i] = multiply_pairs(dt[i], x[i]);
        rest[i] = multiply_add_pairs(dt[i], x[i], source[i] ^ 0x80008000U);
      }
    } else {
      std::uint32_t d_out[kRegisters];
      load_transposed(tile + 2 * sizeof(Tile::operand[0]), d_out);
#pragma unroll
      for (int i = 0; i < kRegisters; ++i) {
        const float z[2] = {first_of(x[i]), second_of(x[i])};
        const float exact[2] = {first_of(d_out[i]) * z[0] * sigmoid(z[0]),
                                second_of(d_out[i]) * z[1] * sigmoid(z[1])};
        source[i] = round_pair(exact[0], exact[1]);
        rest[i] = round_pair(exact[0] - first_of(source[i]), exact[1] - second_of(source[i]));
      }
    }
  }

  __device__ __forceinline__ void add_tokens(const Tile& stage, int column, int first, int count) {
#pragma unroll 2
    for (int t = first; t < first + count; ++t) {
      float distance_log2[2], source[2], coefficient[2][2];
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const auto operand = [&](int i) { return to_float(stage.operand[i][t][column + row * 8 + g()]); };
        const float dt = operand(0), x = operand(1);
        distance_log2[row] = (kForward ? total_dt_[row] : total_dt_[row] + dt) * kLog2E;
        total_dt_[row] += dt;
        if constexpr (kForward) {
          source[row] = dt * x;
        } else {
          source[row] = operand(2) * x * sigmoid(x);
        }
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const auto pair = *reinterpret_cast<const std::uint32_t*>(&stage.coefficient[t][j * 8 + q() * 2]);
        coefficient[j][0] = first_of(pair), coefficient[j][1] = second_of(pair);
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float weight = exp2_approx(distance_log2[i / 2] * decay_[j][i]);
          h_[j][i] = fmaf(weight, source[i / 2] * coefficient[j][i % 2], h_[j][i]);
        }
      }
    }
  }

  float decay_[2][4], h_[2][4] = {};
  float fastest_[2] = {};  // of the thread's decays, by channel
  float total_dt_[2] = {};
};

template <Pass kPass>
__global__ void __launch_bounds__(kThreads, kScanBlocksOfMultiprocessor)
    scan_by_moments(const __grid_constant__ ScanOperands<bfloat16> in,
                    const __grid_constant__ Rows<const bfloat16> d_out, float* state, float* sum_dt) {
  extern __shared__ __align__(16) unsigned char memory[];
  constexpr bool kForward = kPass == Pass::forward;
  using Tile = Stage<kPass>;
  const ScanBlock block(in);
  const int warp = static_cast<int>(threadIdx.x / 32), thread = static_cast<int>(threadIdx.x % 32);
  // Slow channels lie in the same place of all blocks (scan_channel_order): every scheduler gets some of
  // them.
  const int place = static_cast<int>((warp + block.segment) % (kThreads / 32));
  const std::int64_t channel = block.first_channel() + place * kWarpChannels;
  if (channel >= in.channels) return;
  Tile* const stages = reinterpret_cast<Shared<kPass>*>(memory)->stage[warp];
  WarpLoader<kPass> loader(stages, block.count);
  const int channels = static_cast<int>(min(in.channels - channel, std::int64_t{kWarpChannels}));
  const int first = kForward ? max(block.count - 1, 0) : 0;  // token of the segment
  const auto set_operand = [&](int i, const Rows<const bfloat16>& x) {
    loader.set_operand(i, block.at(x, first, channel), kForward ? -x.place_stride : x.place_stride, channels);
  };
  set_operand(0, in.dt);
  set_operand(1, kForward ? in.u : in.z);
  if constexpr (!kForward) set_operand(2, d_out);
  const Rows<const bfloat16>& rows = kForward ? in.b : in.c;
  loader.set_coefficient(block.at(rows, first, in.first_state),
                         kForward ? -rows.place_stride : rows.place_stride, in.states - in.first_state);
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) loader.start();
  ChannelGroup<kPass> group[kGroups];
#pragma unroll
  for (int j = 0; j < kGroups; ++j) group[j].start(in, channel + j * kChannels);
  std::uint32_t centring = make_centring<kPass>();
  keep(centring);
  // The thread's row for load_transposed: as A takes tokens and channels, as B takes tokens and states.
  const int upper = thread / 16, right = thread / 8 % 2, row = thread % 8;
  unsigned operand_from = shared_address(&stages->operand[0][upper * 8 + row][right * 8]);
  unsigned coefficient_from = shared_address(&stages->coefficient[right * 8 + row][upper * 8]);
  keep(operand_from), keep(coefficient_from);
  bool matters[kGroups];
  for (int i = 0; i * kTile < block.count; ++i) {
    const unsigned tile = loader.finish();
    loader.start();
    if (i % 4 == 0) {
      bool any = false;
#pragma unroll
      for (int j = 0; j < kGroups; ++j) {
        matters[j] = group[j].matters();
        any = any || matters[j];
      }
      if (!any) break;
    }
    std::uint32_t coefficients[4];
    load_transposed(coefficient_from + tile, coefficients);
    const Tile& stage = *reinterpret_cast<const Tile*>(reinterpret_cast<unsigned char*>(stages) + tile);
#pragma unroll
    for (int j = 0; j < kGroups; ++j) {
      if (matters[j]) {
        group[j].add(operand_from + tile + j * kChannels * sizeof(bfloat16), stage, j * kChannels,
                     coefficients, centring);
      }
    }
  }
  asm volatile("cp.async.wait_all;");
#pragma unroll
  for (int j = 0; j < kGroups; ++j) {
    group[j].store(in, channel + j * kChannels, block.segment * in.lanes + block.lane, state, sum_dt);
  }
}

template <Pass kPass>
void launch(const ScanOperands<bfloat16>& in, const Rows<const bfloat16>& d_out,
            const SegmentStates& segments, Context& context) {
  const auto kernel = scan_by_moments<kPass>;
  allow_shared_memory(kernel, sizeof(Shared<kPass>), "selective scan: shared memory");
  for_each_state_group(in, [&](const ScanOperands<bfloat16>& group) {
    kernel<<<scan_grid(in.lanes, in.channels, in.segments), kThreads, sizeof(Shared<kPass>),
             stream_of(context)>>>(group, d_out, segments.state.data, segments.sum_dt.data);
  });
  check_launch("selective scan: segments");
}

}  // namespace

bool scan_by_moments(Pass pass, const ScanOperands<bfloat16>& in, const Rows<const bfloat16>& d_out,
                     const SegmentStates& segments, Context& context) {
  const Rows<const bfloat16>& coefficients = pass == Pass::forward ? in.b : in.c;
  if (!in.aligned || in.states % 4 != 0 || !coefficients.aligned(8)) return false;
  if (pass == Pass::forward) {
    launch<Pass::forward>(in, d_out, segments, context);
  } else {
    launch<Pass::backward>(in, d_out, segments, context);
  }
  return true;
}

}  // namespace longstrand::cuda
