#include "kernels/simd_targets.hpp"
//
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/selective_scan_forward_cpu.cpp"
#include "hwy/foreach_target.h"
//
#include <cassert>

#include "kernels/selective_scan_cpu-inl.hpp"
#include "kernels/selective_scan_cpu.hpp"

HWY_BEFORE_NAMESPACE();
namespace longstrand::HWY_NAMESPACE {
namespace {

/// What the loop over the states reads and adds to: a row of kLanes floats for each token of a segment.
struct Rows {
  float* dt;
  float* dtu;  // dt u
  float* y;    // D u + C . h
};

template <class T>
HWY_INLINE void prepare_rows(const SelectiveScanInput<T>& input, const Segment& segment, const Group& group,
                             const Rows rows) {
  const FloatVec skip = load(input.d.at(group.channel), group.count);
  const auto u_rows = segment_rows(input.u, segment, group);
  const auto dt_rows = segment_rows(input.dt, segment, group);
  for (std::int64_t t = 0; t < segment.tokens; ++t) {
    u_rows.fetch_next_group(t);
    dt_rows.fetch_next_group(t);
    const FloatVec u = u_rows.get(t);
    const FloatVec dt = dt_rows.get(t);
    store(dt, rows.dt + t * kLanes);
    store(hn::Mul(dt, u), rows.dtu + t * kLanes);
    store(hn::Mul(skip, u), rows.y + t * kLanes);
  }
}

/// States [n, n + kStates) of a group through a segment, from and to `state`; b and c are [tokens, N].
template <int kStates>
HWY_INLINE void scan_states(const View<const float, 2>& decay, const View<float, 2>& state, std::int64_t n,
                            const float* b, const float* c, const Segment& segment, const Group& group,
                            const Rows rows) {
  const std::int64_t states = decay.shape[0];
  FloatVec h[kStates];
  FloatVec a[kStates];
  HWY_UNROLL(16)  // or the arrays would be kept in memory beside the registers
  for (int i = 0; i < kStates; ++i) {
    h[i] = load(state.at(n + i, group.channel), group.count);
    a[i] = load(decay.at(n + i, group.channel), group.count);
  }
  for (std::int64_t t = 0; t < segment.tokens; ++t) {
    const FloatVec dt = load(rows.dt + t * kLanes);
    const FloatVec dtu = load(rows.dtu + t * kLanes);
    const float* b_t = b + t * states + n;
    const float* c_t = c + t * states + n;
    FloatVec y[2] = {load(rows.y + t * kLanes), hn::Zero(FloatTag())};  // two sums: half the latency
    HWY_UNROLL(16)
    for (int i = 0; i < kStates; ++i) {
      h[i] = hn::MulAdd(exp2(hn::Mul(dt, a[i])), h[i], hn::Mul(dtu, set(b_t[i])));
      y[i % 2] = hn::MulAdd(h[i], set(c_t[i]), y[i % 2]);
    }
    store(hn::Add(y[0], y[1]), rows.y + t * kLanes);
  }
  HWY_UNROLL(16)
  for (int i = 0; i < kStates; ++i) store(h[i], state.at(n + i, group.channel), group.count);
}

template <class T>
HWY_INLINE void gate_rows(const View<const T, 3>& z, const SelectiveScanOutput<T>& output,
                          const Segment& segment, const Group& group, const Rows rows) {
  const auto z_rows = segment_rows(z, segment, group);
  const auto out_rows = segment_rows(output.out, segment, group);
  for (std::int64_t t = 0; t < segment.tokens; ++t) {
    z_rows.fetch_next_group(t);
    out_rows.fetch_next_group(t);
    const FloatVec gated = hn::Mul(load(rows.y + t * kLanes), silu(z_rows.get(t)));
    out_rows.put(output.accumulate ? hn::Add(out_rows.get(t), gated) : gated, t);
  }
}

/// As many states at a time as stay in registers beside what the exponential needs.
inline constexpr int kRegisterStates = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON ? 16 : 8;

template <class T>
void scan_segment(const SelectiveScanInput<T>& input, const SelectiveScanOutput<T>& output,
                  const Segment& segment, Context& context) {
  const std::int64_t channels = input.u.shape[2];
  const std::int64_t states = input.decay.shape[0];
  const Arena::Scope scope(context.scratch);
  float* b = context.scratch.take<float, 2>({segment.tokens, states}).data;
  float* c = context.scratch.take<float, 2>({segment.tokens, states}).data;
  widen_rows(input.b, segment, b);
  widen_rows(input.c, segment, c);
  const auto row = [&] { return context.scratch.take<float, 2>({segment.tokens, kLanes}).data; };
  const Rows rows{row(), row(), row()};
  const View<float, 2> state(output.state.at(segment.lane), {states, channels}, {output.state.stride[1], 1},
                             output.state.device);
  for (std::int64_t channel = 0; channel < channels; channel += kLanes) {
    const Group group = group_at(channel, channels);
    prepare_rows(input, segment, group, rows);
    std::int64_t n = 0;
    for (; n + kRegisterStates <= states; n += kRegisterStates) {
      scan_states<kRegisterStates>(input.decay, state, n, b, c, segment, group, rows);
    }
    for (; n + 4 <= states; n += 4) scan_states<4>(input.decay, state, n, b, c, segment, group, rows);
    for (; n < states; ++n) scan_states<1>(input.decay, state, n, b, c, segment, group, rows);
    gate_rows(input.z, output, segment, group, rows);
  }
}

void copy_rows(const View<const float, 2>& from, const View<float, 2>& to) {
  if (from.data == to.data) return;
  for (std::int64_t n = 0; n < from.shape[0]; ++n) std::copy_n(from.at(n), from.shape[1], to.at(n));
}

template <class T>
void forward(const SelectiveScanInput<T>& input, const SelectiveScanOutput<T>& output, Context& context) {
  for (std::int64_t lane = 0; lane < input.u.shape[0]; ++lane) {
    const std::int64_t valid = *input.valid.at(lane);
    assert(valid >= 0 && valid <= input.u.shape[1]);
    const auto state = innermost(output.state, lane);
    copy_rows(innermost(input.state, lane), state);
    const TokenOrder order(input.direction, valid);
    for (std::int64_t begin = 0; begin < valid; begin += cpu::kScanCheckpoint_tokens) {
      if (!output.checkpoints.empty()) {
        copy_rows(state, innermost(output.checkpoints, begin / cpu::kScanCheckpoint_tokens, lane));
      }
      const std::int64_t tokens = std::min(cpu::kScanCheckpoint_tokens, valid - begin);
      scan_segment(input, output, {lane, begin, tokens, order}, context);
    }
    if (!output.accumulate) clear_rows(output.out, lane, valid);
  }
}

void forward_float(const SelectiveScanInput<float>& input, const SelectiveScanOutput<float>& output,
                   Context& context) {
  forward(input, output, context);
}

void forward_bfloat16(const SelectiveScanInput<bfloat16>& input, const SelectiveScanOutput<bfloat16>& output,
                      Context& context) {
  forward(input, output, context);
}

}  // namespace
}  // namespace longstrand::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstrand::cpu {

HWY_EXPORT(forward_float);
HWY_EXPORT(forward_bfloat16);

template <>
void selective_scan_forward(const SelectiveScanInput<float>& input, const SelectiveScanOutput<float>& output,
                            Context& context) {
  HWY_DYNAMIC_DISPATCH(forward_float)(input, output, context);
}

template <>
void selective_scan_forward(const SelectiveScanInput<bfloat16>& input,
                            const SelectiveScanOutput<bfloat16>& output, Context& context) {
  HWY_DYNAMIC_DISPATCH(forward_bfloat16)(input, output, context);
}

}  // namespace longstrand::cpu
#endif  // HWY_ONCE
