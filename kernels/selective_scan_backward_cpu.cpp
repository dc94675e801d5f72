// A segment at a time, last to first: from the checkpointed state the segment's states are computed again,
// then its tokens are walked from the last to the first with g_t = dL/dh_t:
//
//   d_y_t = d_out_t silu(z_t)                 g_t = C_t d_y_t + carry_{t+1},   carry_t = exp(dt_t A) g_t
//   d_C_t = sum_d h_t d_y_t                   d_B_t = sum_d g_t dt_t u_t
//   d_u_t = D d_y_t + dt_t sum_n g_t B_t      d_dt_t = sum_n (carry_t h_{t-1} A + g_t B_t u_t)
//   d_A  += carry_t h_{t-1} dt_t              d_D += d_y_t u_t
//   d_z_t = d_out_t y_t silu'(z_t)            d_delta_t = d_dt_t (1 - exp(-dt_t))
//
// carry is the gradient of the final state at the chunk's end, and that of the initial state at its start.
#include "kernels/simd_targets.hpp"
//
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/selective_scan_backward_cpu.cpp"
#include "hwy/foreach_target.h"
//
#include <cassert>
#include <numbers>

#include "kernels/selective_scan_cpu-inl.hpp"
#include "kernels/selective_scan_cpu.hpp"

HWY_BEFORE_NAMESPACE();
namespace longstrand::HWY_NAMESPACE {
namespace {

/// States taken together. Their h and decays of a segment fill half of a first-level cache of 32 KiB, and
/// their sums over channels fit into one vector (see add_lanes).
inline constexpr int kBlockStates = kLanes >= 4 ? 4 : 1;

inline constexpr float kLn2 = std::numbers::ln2_v<float>;

/// Scratch of a lane's segment. Rows of a group are [tokens, kLanes].
struct SegmentScratch {
  float *b, *c;      // [tokens, N]
  float *d_b, *d_c;  // [tokens, slots, kLanes]  sums over the groups of channels, by add_lanes
  float *dt, *dtu;   // rows: dt, dt u
  float *y, *d_y;    // rows: D u + C . h, d_out silu(z)
  float* d_z;        // rows: d_out silu'(z), so that d_z = d_z y
  float* g_b;        // rows: sum_n g B
  float* g_h;        // rows: sum_n carry h_{t-1} A log2(e)
  float* h;          // [tokens + 1, kBlockStates, kLanes]  h[t] is the state before token t
  float* power;      // [tokens, kBlockStates, kLanes]      exp(dt A)
};

/// A slot is kLanes floats: the sums of a block of states, or of a state that is left over.
constexpr std::int64_t slot_count(std::int64_t states) {
  return states / kBlockStates + states % kBlockStates;
}

SegmentScratch take_scratch(std::int64_t states, Arena& arena) {
  constexpr std::int64_t kTokens = cpu::kScanCheckpoint_tokens;
  const auto take = [&](std::int64_t rows, std::int64_t width) {
    return arena.take<float, 2>({rows, width}).data;
  };
  const auto row = [&] { return take(kTokens, kLanes); };
  return {.b = take(kTokens, states),
          .c = take(kTokens, states),
          .d_b = take(kTokens, slot_count(states) * kLanes),
          .d_c = take(kTokens, slot_count(states) * kLanes),
          .dt = row(),
          .dtu = row(),
          .y = row(),
          .d_y = row(),
          .d_z = row(),
          .g_b = row(),
          .g_h = row(),
          .h = take(kTokens + 1, kBlockStates * kLanes),
          .power = take(kTokens, kBlockStates * kLanes)};
}

template <class T>
HWY_INLINE void prepare_rows(const SelectiveScanInput<T>& input, const View<const T, 3>& d_out,
                             const Segment& segment, const Group& group, const SegmentScratch scratch) {
  const FloatVec skip = load(input.d.at(group.channel), group.count);
  const auto u_rows = segment_rows(input.u, segment, group);
  const auto dt_rows = segment_rows(input.dt, segment, group);
  const auto z_rows = segment_rows(input.z, segment, group);
  const auto d_out_rows = segment_rows(d_out, segment, group);
  for (std::int64_t t = 0; t < segment.tokens; ++t) {
    u_rows.fetch_next_group(t);
    dt_rows.fetch_next_group(t);
    z_rows.fetch_next_group(t);
    d_out_rows.fetch_next_group(t);
    const FloatVec u = u_rows.get(t);
    const FloatVec dt = dt_rows.get(t);
    store(dt, scratch.dt + t * kLanes);
    store(hn::Mul(dt, u), scratch.dtu + t * kLanes);
    store(hn::Mul(skip, u), scratch.y + t * kLanes);
    const FloatVec z = z_rows.get(t);
    const FloatVec gate = sigmoid(z);
    const FloatVec through_gate = d_out_rows.get(t);
    store(hn::Mul(through_gate, hn::Mul(z, gate)), scratch.d_y + t * kLanes);
    store(hn::Mul(through_gate, silu_slope(z, gate)), scratch.d_z + t * kLanes);
    store(hn::Zero(FloatTag()), scratch.g_b + t * kLanes);
    store(hn::Zero(FloatTag()), scratch.g_h + t * kLanes);
  }
}

/// States [n, n + kStates) of N: where they lie in the operands, and which slot their sums go to.
struct StateBlock {
  View<const float, 2> decay;  // [kStates, D]
  View<const float, 2> start;  // [kStates, D]  the checkpoint
  View<float, 2> carry;        // [kStates, D]  the lane's d_state
  View<float, 2> d_a;          // [kStates, D padded]  sums of all lanes and segments
  std::int64_t n, states, slot;
};

/// The segment's states again, from its checkpoint; completes y.
template <int kStates>
HWY_INLINE void recompute_states(const StateBlock& block, const Segment& segment, const Group& group,
                                 const SegmentScratch scratch) {
  FloatVec h[kStates];
  FloatVec a[kStates];
  for (int i = 0; i < kStates; ++i) {
    h[i] = load(block.start.at(i, group.channel), group.count);
    a[i] = load(block.decay.at(i, group.channel), group.count);
    store(h[i], scratch.h + i * kLanes);
  }
  for (std::int64_t t = 0; t < segment.tokens; ++t) {
    const FloatVec dt = load(scratch.dt + t * kLanes);
    const FloatVec dtu = load(scratch.dtu + t * kLanes);
    const float* b = scratch.b + t * block.states + block.n;
    const float* c = scratch.c + t * block.states + block.n;
    FloatVec y = load(scratch.y + t * kLanes);
    HWY_UNROLL(16)
    for (int i = 0; i < kStates; ++i) {
      const FloatVec power = exp2(hn::Mul(dt, a[i]));
      h[i] = hn::MulAdd(power, h[i], hn::Mul(dtu, set(b[i])));
      y = hn::MulAdd(h[i], set(c[i]), y);
      store(power, scratch.power + (t * kStates + i) * kLanes);
      store(h[i], scratch.h + ((t + 1) * kStates + i) * kLanes);
    }
    store(y, scratch.y + t * kLanes);
  }
}

/// In every 128 bits, as elements of Tag: the lower half of a beside that of b, interleaved, plus the upper
/// halves; one vector for two, in which their sums over the lanes stay apart. (The interleaving functions are
/// looked up when called, since the target of a single lane has none.)
template <class Tag>
HWY_INLINE FloatVec fold(Tag tag, FloatVec a, FloatVec b) {
  const auto low = InterleaveLower(tag, hn::BitCast(tag, a), hn::BitCast(tag, b));
  const auto high = InterleaveUpper(tag, hn::BitCast(tag, a), hn::BitCast(tag, b));
  return hn::Add(hn::BitCast(FloatTag(), low), hn::BitCast(FloatTag(), high));
}

/// Adds to a slot: its lanes i, i + kStates, i + 2 kStates, ... add up to the sum of the lanes of x[i].
template <int kStates>
HWY_INLINE void add_lanes(const FloatVec (&x)[kStates], float* slot) {
  if constexpr (kStates == 1) {
    store(hn::Add(load(slot), x[0]), slot);
  } else {
    static_assert(kStates == 4);
    const FloatTag single;
    const hn::RepartitionToWide<hn::RebindToUnsigned<FloatTag>> pair;
    const FloatVec folded = fold(pair, fold(single, x[0], x[1]), fold(single, x[2], x[3]));
    store(hn::Add(load(slot), folded), slot);
  }
}

/// From the segment's last token to its first.
template <int kStates>
HWY_INLINE void walk_back(const StateBlock& block, const Segment& segment, const Group& group,
                          const SegmentScratch scratch) {
  FloatVec carry[kStates];
  FloatVec d_a[kStates];
  FloatVec a[kStates];
  for (int i = 0; i < kStates; ++i) {
    carry[i] = load(block.carry.at(i, group.channel), group.count);
    a[i] = load(block.decay.at(i, group.channel), group.count);
    d_a[i] = load(block.d_a.at(i, group.channel));
  }
  for (std::int64_t t = segment.tokens - 1; t >= 0; --t) {
    const FloatVec dt = load(scratch.dt + t * kLanes);
    const FloatVec dtu = load(scratch.dtu + t * kLanes);
    const FloatVec d_y = load(scratch.d_y + t * kLanes);
    FloatVec g_b = load(scratch.g_b + t * kLanes);
    FloatVec g_h = load(scratch.g_h + t * kLanes);
    const std::int64_t shared = t * block.states + block.n;
    const std::int64_t slot = t * slot_count(block.states) + block.slot;
    FloatVec d_b[kStates];
    FloatVec d_c[kStates];
    HWY_UNROLL(16)
    for (int i = 0; i < kStates; ++i) {
      const FloatVec after = load(scratch.h + ((t + 1) * kStates + i) * kLanes);
      const FloatVec before = load(scratch.h + (t * kStates + i) * kLanes);
      const FloatVec g = hn::MulAdd(d_y, set(scratch.c[shared + i]), carry[i]);
      d_c[i] = hn::Mul(after, d_y);
      d_b[i] = hn::Mul(g, dtu);
      g_b = hn::MulAdd(g, set(scratch.b[shared + i]), g_b);
      carry[i] = hn::Mul(g, load(scratch.power + (t * kStates + i) * kLanes));
      const FloatVec through_decay = hn::Mul(carry[i], before);
      g_h = hn::MulAdd(through_decay, a[i], g_h);
      d_a[i] = hn::MulAdd(through_decay, dt, d_a[i]);
    }
    store(g_b, scratch.g_b + t * kLanes);
    store(g_h, scratch.g_h + t * kLanes);
    add_lanes(d_b, scratch.d_b + slot * kLanes);
    add_lanes(d_c, scratch.d_c + slot * kLanes);
  }
  for (int i = 0; i < kStates; ++i) {
    store(carry[i], block.carry.at(i, group.channel), group.count);
    store(d_a[i], block.d_a.at(i, group.channel));
  }
}

/// The gradients of a group that have a channel: of u, delta, z and of the parameters D and delta_bias.
template <class T>
HWY_INLINE void finish_rows(const SelectiveScanInput<T>& input, const SelectiveScanGradient<T>& gradient,
                            const Segment& segment, const Group& group, const SegmentScratch scratch) {
  const FloatVec skip = load(input.d.at(group.channel), group.count);
  FloatVec d_skip = hn::Zero(FloatTag());
  FloatVec d_bias = hn::Zero(FloatTag());
  const auto u_rows = segment_rows(input.u, segment, group);
  const auto d_u_rows = segment_rows(gradient.d_u, segment, group);
  const auto d_delta_rows = segment_rows(gradient.d_delta, segment, group);
  const auto d_z_rows = segment_rows(gradient.d_z, segment, group);
  for (std::int64_t t = 0; t < segment.tokens; ++t) {
    d_u_rows.fetch_next_group(t);
    d_delta_rows.fetch_next_group(t);
    d_z_rows.fetch_next_group(t);
    const auto row = [&](const float* rows) HWY_ATTR { return load(rows + t * kLanes); };
    const FloatVec u = u_rows.get(t);
    const FloatVec d_y = row(scratch.d_y);
    const FloatVec dt = row(scratch.dt);
    const FloatVec g_b = row(scratch.g_b);
    d_z_rows.put(hn::Mul(row(scratch.d_z), row(scratch.y)), t);
    d_u_rows.put(hn::MulAdd(dt, g_b, hn::Mul(skip, d_y)), t);
    const FloatVec d_dt = hn::MulAdd(row(scratch.g_h), set(kLn2), hn::Mul(u, g_b));
    const FloatVec d_delta = hn::Mul(d_dt, softplus_slope(dt));
    d_delta_rows.put(d_delta, t);
    d_bias = hn::Add(d_bias, d_delta);
    d_skip = hn::MulAdd(d_y, u, d_skip);
  }
  const auto add = [&](FloatVec sum, const View<float, 1>& total) HWY_ATTR {
    float* to = total.at(group.channel);
    store(hn::Add(load(to, group.count), sum), to, group.count);
  };
  add(d_skip, gradient.d_d);
  add(d_bias, gradient.d_delta_bias);
}

/// The sums [tokens, slots, kLanes] of add_lanes -> to [B, T, N].
template <class T>
void reduce_slots(const float* slot, const Segment& segment, const View<T, 3>& to) {
  const std::int64_t states = to.shape[2];
  for (std::int64_t t = 0; t < segment.tokens; ++t) {
    T* row = to.at(segment.lane, segment.row(t));
    for (std::int64_t n = 0; n < states; slot += kLanes) {
      const int width = n + kBlockStates <= states ? kBlockStates : 1;
      for (int i = 0; i < width; ++i) {
        float sum = 0;
        for (std::int64_t lane = i; lane < kLanes; lane += width) sum += slot[lane];
        row[n++] = T(sum);
      }
    }
  }
}

template <class T>
void backward_segment(const SelectiveScanInput<T>& input, const SelectiveScanGradient<T>& gradient,
                      const Segment& segment, const View<float, 2>& d_a, const SegmentScratch& scratch) {
  const std::int64_t channels = input.u.shape[2];
  const std::int64_t states = input.decay.shape[0];
  widen_rows(input.b, segment, scratch.b);
  widen_rows(input.c, segment, scratch.c);
  std::fill_n(scratch.d_b, segment.tokens * slot_count(states) * kLanes, 0.0F);
  std::fill_n(scratch.d_c, segment.tokens * slot_count(states) * kLanes, 0.0F);
  const auto start =
      innermost(gradient.checkpoints, segment.begin / cpu::kScanCheckpoint_tokens, segment.lane);
  const auto carry = innermost(gradient.d_state, segment.lane);
  for (std::int64_t channel = 0; channel < channels; channel += kLanes) {
    const Group group = group_at(channel, channels);
    prepare_rows(input, gradient.d_out, segment, group, scratch);
    const auto block = [&](std::int64_t n, std::int64_t count) {
      return StateBlock{input.decay.slice(n, count),
                        start.slice(n, count),
                        carry.slice(n, count),
                        d_a.slice(n, count),
                        n,
                        states,
                        n / kBlockStates + n % kBlockStates};
    };
    std::int64_t n = 0;
    for (; n + kBlockStates <= states; n += kBlockStates) {
      recompute_states<kBlockStates>(block(n, kBlockStates), segment, group, scratch);
      walk_back<kBlockStates>(block(n, kBlockStates), segment, group, scratch);
    }
    for (; n < states; ++n) {
      recompute_states<1>(block(n, 1), segment, group, scratch);
      walk_back<1>(block(n, 1), segment, group, scratch);
    }
    finish_rows(input, gradient, segment, group, scratch);
  }
  reduce_slots(scratch.d_b, segment, gradient.d_b);
  reduce_slots(scratch.d_c, segment, gradient.d_c);
}

/// d_a [N, D padded] is the gradient of A; dA/da_log = A = decay ln 2.
void add_decay_gradient(const View<const float, 2>& decay, const View<float, 2>& d_a,
                        const View<float, 2>& d_a_log) {
  for (std::int64_t channel = 0; channel < decay.shape[1]; ++channel) {
    for (std::int64_t n = 0; n < decay.shape[0]; ++n) {
      d_a_log.at(channel)[n] += d_a.at(n)[channel] * decay.at(n)[channel] * kLn2;
    }
  }
}

template <class T>
void clear_padding(const SelectiveScanGradient<T>& gradient, std::int64_t lane, std::int64_t begin) {
  for (const View<T, 3>& view : {gradient.d_u, gradient.d_delta, gradient.d_b, gradient.d_c, gradient.d_z}) {
    clear_rows(view, lane, begin);
  }
}

template <class T>
void backward(const SelectiveScanInput<T>& input, const SelectiveScanGradient<T>& gradient,
              Context& context) {
  const auto [lanes, tokens, channels] = input.u.shape;
  const std::int64_t states = input.decay.shape[0];
  const Arena::Scope scope(context.scratch);
  const SegmentScratch scratch = take_scratch(states, context.scratch);
  const View<float, 2> d_a =
      context.scratch.take<float, 2>({states, (channels + kLanes - 1) / kLanes * kLanes});
  std::fill_n(d_a.data, d_a.size(), 0.0F);
  for (std::int64_t lane = 0; lane < lanes; ++lane) {
    const std::int64_t valid = *input.valid.at(lane);
    assert(valid >= 0 && valid <= tokens);
    clear_padding(gradient, lane, valid);
    const TokenOrder order(input.direction, valid);
    for (std::int64_t end = valid; end > 0;) {
      const std::int64_t begin = (end - 1) / cpu::kScanCheckpoint_tokens * cpu::kScanCheckpoint_tokens;
      backward_segment(input, gradient, {lane, begin, end - begin, order}, d_a, scratch);
      end = begin;
    }
  }
  add_decay_gradient(input.decay, d_a, gradient.d_a_log);
}

void backward_float(const SelectiveScanInput<float>& input, const SelectiveScanGradient<float>& gradient,
                    Context& context) {
  backward(input, gradient, context);
}

void backward_bfloat16(const SelectiveScanInput<bfloat16>& input,
                       const SelectiveScanGradient<bfloat16>& gradient, Context& context) {
  backward(input, gradient, context);
}

}  // namespace
}  // namespace longstrand::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstrand::cpu {

HWY_EXPORT(backward_float);
HWY_EXPORT(backward_bfloat16);

template <>
void selective_scan_backward(const SelectiveScanInput<float>& input,
                             const SelectiveScanGradient<float>& gradient, Context& context) {
  HWY_DYNAMIC_DISPATCH(backward_float)(input, gradient, context);
}

template <>
void selective_scan_backward(const SelectiveScanInput<bfloat16>& input,
                             const SelectiveScanGradient<bfloat16>& gradient, Context& context) {
  HWY_DYNAMIC_DISPATCH(backward_bfloat16)(input, gradient, context);
}

}  // namespace longstrand::cpu
#endif  // HWY_ONCE
