// The first pass over the segments for bfloat16, by tensor cores: what the kernels share that have one. What
// a token adds to the state at the segment's end is its source times B_n, weighted by the decay over the
// distance to there, in sums of dt. Within a tile of tokens a slow state's weight is, but for a factor of the
// tile, a cubic of the distance x from the tile's centre:
//
//   sum_t 2^(a (d + x_t)) source_t B_n,t  =  2^(a d) sum_k (ln 2 a)^k c_k sum_t x_t^k source_t B_n,t
//
// so that a tile costs one exponential a channel and state instead of one a token as well, and the inner
// sums are products of matrices, [channels and k, tokens] by [tokens, states]. A state that decays too much
// for that within a tile is forgotten within a few: until then its tile is taken in halves with more terms,
// and where these are too long as well, token by token.
#pragma once

#include "kernels/cuda_mma.cuh"
#include "kernels/cuda_packet.cuh"
#include "kernels/selective_scan_cuda.cuh"

namespace longstrand::cuda::moments {

inline constexpr int kTile = 16;      // tokens
inline constexpr int kChannels = 16;  // of a group, whose products a warp makes at a time

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

inline constexpr std::uint32_t kHalf = 0x3f00U, kMinusHalf = 0xbf00U;  // of bfloat16
inline constexpr std::uint32_t kHalves = kHalf << 16 | kHalf, kMinusHalves = kMinusHalf << 16 | kMinusHalf;

/// a b + c of pairs of bfloat16, rounded once.
__device__ inline std::uint32_t multiply_add_pairs(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  std::uint32_t result;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
  return result;
}
__device__ inline std::uint32_t multiply_pairs(std::uint32_t a, std::uint32_t b) {
  return multiply_add_pairs(a, b, 0x80008000U);
}

/// Has `x` kept in a register, where the compiler would rather make it again.
__device__ inline void keep(std::uint32_t& x) { x = __shfl_sync(~0U, x, threadIdx.x % 32); }

/// 4 kRegisters tokens of a group's channels, as A has them (cuda_mma.cuh): dt, and what their sources are
/// made of, forward u, backward z and d_out.
template <Pass kPass, int kRegisters>
struct Tokens {
  static constexpr int kOperands = kPass == Pass::forward ? 2 : 3;
  std::uint32_t operand[kOperands][kRegisters];

  /// The first or the second half of 16.
  __device__ Tokens<kPass, 2> half(int which) const {
    static_assert(kRegisters == 4);
    Tokens<kPass, 2> result;
#pragma unroll
    for (int i = 0; i < kOperands; ++i) {
#pragma unroll
      for (int j = 0; j < 2; ++j) result.operand[i][j] = which == 0 ? operand[i][j] : operand[i][2 + j];
    }
    return result;
  }
  /// Of the thread's channel `row`, of its two, and token `t` of 8.
  __device__ float value(int i, int row, int t) const {
    static_assert(kRegisters == 2);
    const std::uint32_t pair = __shfl_sync(~0U, operand[i][row], (threadIdx.x & 28U) + t / 2);
    return t % 2 == 0 ? first_of(pair) : second_of(pair);
  }
};

/// Of the tokens in registers, and in memory, which is taken first; the walk goes away from the end of the
/// segment that the scan's state is wanted at.
enum class Order { first_to_last, last_to_first };

/// For the distances of 8 tokens from their centre: with dt as A and this as B, each is half of those taken
/// before less half of those taken after it. The distance ends before a token (forward) or with it.
template <Pass kPass, Order kOrder>
__device__ inline std::uint32_t make_centring() {
  const int g = static_cast<int>(threadIdx.x % 32 / 4), q = static_cast<int>(threadIdx.x % 4);
  std::uint32_t pair = 0;
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int ahead = kOrder == Order::first_to_last ? g - (q * 2 + j) : q * 2 + j - g;
    pair |= (ahead > 0 || (kPass == Pass::backward && ahead == 0) ? kHalf : kMinusHalf) << 16 * j;
  }
  return pair;
}

/// 16 channels. Of channels g and g + 8 a thread has states 2 q, 2 q + 1 and those 8 further, as products
/// have them (cuda_mma.cuh).
template <Pass kPass, Order kOrder>
class ChannelGroup {
 public:
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

  /// Takes kTile tokens. `coefficients`: B or C of theirs, as B has them; `rows`: the same in shared memory,
  /// the group's first state of the first token, with kStride elements from token to token.
  template <int kStride>
  __device__ __forceinline__ void add(const Tokens<kPass, 4>& tokens, const std::uint32_t (&coefficients)[4],
                                      const bfloat16* rows, std::uint32_t centring) {
    if (add_part(tokens, coefficients, centring)) return;
#pragma unroll 1
    for (int i = 0; i < 2; ++i) {
      const int which = kOrder == Order::first_to_last ? i : 1 - i;
      const Tokens<kPass, 2> half = tokens.half(which);
      const auto pick = [&](std::uint32_t first, std::uint32_t second) {
        return which == 0 ? first : second;
      };
      const std::uint32_t of_half[2] = {pick(coefficients[0], coefficients[1]),
                                        pick(coefficients[2], coefficients[3])};
      if (!add_part(half, of_half, centring)) add_tokens<kStride>(half, rows + which * kTile / 2 * kStride);
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

  /// Adds 4 kRegisters tokens, unless a state that still matters decays too much from their centre to their
  /// ends: then false.
  template <int kRegisters>
  __device__ __forceinline__ bool add_part(const Tokens<kPass, kRegisters>& tokens,
                                           const std::uint32_t (&coefficients)[kRegisters],
                                           std::uint32_t centring) {
    using Terms = Expansion<kRegisters * 4>;
    const std::uint32_t(&dt)[kRegisters] = tokens.operand[0];
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
    set_sources(tokens, source[0], rest);
    constexpr bool kFirst = kOrder == Order::first_to_last;
#pragma unroll
    for (int i = 0; i < kRegisters; i += 2) {
      float distance[4] = {};
      multiply_add(distance, dt, i == 0 ? centring : (kFirst ? kHalves : kMinusHalves),
                   i == 0 ? (kFirst ? kMinusHalves : kHalves) : centring);
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
  __device__ __forceinline__ static void set_sources(const Tokens<kPass, kRegisters>& tokens,
                                                     std::uint32_t (&source)[kRegisters],
                                                     std::uint32_t (&rest)[kRegisters]) {
    const std::uint32_t(&dt)[kRegisters] = tokens.operand[0];
    const std::uint32_t(&x)[kRegisters] = tokens.operand[1];
    if constexpr (kForward) {
#pragma unroll
      for (int i = 0; i < kRegisters; ++i) {
        source[i] = multiply_pairs(dt[i], x[i]);
        rest[i] = multiply_add_pairs(dt[i], x[i], source[i] ^ 0x80008000U);
      }
    } else {
      const std::uint32_t(&d_out)[kRegisters] = tokens.operand[2];
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

  template <int kStride>
  __device__ __forceinline__ void add_tokens(const Tokens<kPass, 2>& tokens, const bfloat16* rows) {
#pragma unroll 2
    for (int i = 0; i < kTile / 2; ++i) {
      const int t = kOrder == Order::first_to_last ? i : kTile / 2 - 1 - i;
      float distance_log2[2], source[2], coefficient[2][2];
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const float dt = tokens.value(0, row, t), x = tokens.value(1, row, t);
        distance_log2[row] = (kForward ? total_dt_[row] : total_dt_[row] + dt) * kLog2E;
        total_dt_[row] += dt;
        if constexpr (kForward) {
          source[row] = dt * x;
        } else {
          source[row] = tokens.value(2, row, t) * x * sigmoid(x);
        }
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const auto pair = *reinterpret_cast<const std::uint32_t*>(rows + t * kStride + j * 8 + q() * 2);
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

}  // namespace longstrand::cuda::moments
