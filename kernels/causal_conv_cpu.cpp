// A group of channels at a time, along the length; the last K - 1 inputs stay in registers.
#include "kernels/simd_targets.hpp"
//
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/causal_conv_cpu.cpp"
#include "hwy/foreach_target.h"
//
#include <array>
#include <cassert>

#include "kernels/causal_conv_cpu.hpp"
#include "kernels/channel_group-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace longstrand::HWY_NAMESPACE {
namespace {

/// The kernel of a group, and its products.
template <int kTaps>
struct Taps {
  FloatVec weight[kTaps];
  FloatVec bias;

  HWY_INLINE Taps(const View<const float, 2>& weights, const View<const float, 1>& biases, const Group& group)
      : bias(load(biases.at(group.channel), group.count)) {
    float columns[kTaps][kLanes] = {};
    for (std::int64_t i = 0; i < group.count; ++i) {
      for (int k = 0; k < kTaps; ++k) columns[k][i] = weights.at(group.channel + i)[k];
    }
    for (int k = 0; k < kTaps; ++k) weight[k] = load(columns[k]);
  }

  /// bias + sum_k weight[k] window[k]
  HWY_INLINE FloatVec convolve(const FloatVec (&window)[kTaps]) const {
    FloatVec sum = bias;
    HWY_UNROLL(8)
    for (int k = 0; k < kTaps; ++k) sum = hn::MulAdd(weight[k], window[k], sum);
    return sum;
  }
  /// sum_k weight[K - 1 - k] window[k]: what an input that is convolved with each of the taps gets back.
  HWY_INLINE FloatVec correlate(const FloatVec (&window)[kTaps]) const {
    FloatVec sum = hn::Mul(weight[kTaps - 1], window[0]);
    HWY_UNROLL(8)
    for (int k = 1; k < kTaps; ++k) sum = hn::MulAdd(weight[kTaps - 1 - k], window[k], sum);
    return sum;
  }
};

/// Drops the oldest vector.
template <int kTaps>
HWY_INLINE void shift(FloatVec (&window)[kTaps]) {
  HWY_UNROLL(8)
  for (int k = 0; k + 1 < kTaps; ++k) window[k] = window[k + 1];
}

template <int kTaps, class T>
void forward_group(const CausalConvInput<T>& input, const View<T, 3>& out, const View<float, 3>& state,
                   std::int64_t lane, const Group& group) {
  const Taps<kTaps> taps(input.weight, input.bias, group);
  FloatVec window[kTaps];
  for (int k = 0; k + 1 < kTaps; ++k) window[k] = load(input.state.at(lane, k, group.channel), group.count);
  const std::int64_t valid = *input.valid.at(lane);
  const TokenOrder order(input.direction, valid);
  const GroupRows x_rows(input.x, lane, order, 0, group);
  const GroupRows out_rows(out, lane, order, 0, group);
  for (std::int64_t t = 0; t < valid; ++t) {
    x_rows.fetch_next_group(t);
    out_rows.fetch_next_group(t);
    window[kTaps - 1] = x_rows.get(t);
    out_rows.put(silu(taps.convolve(window)), t);
    shift(window);
  }
  for (int k = 0; k + 1 < kTaps; ++k) store(window[k], state.at(lane, k, group.channel), group.count);
}

/// Sums of a group's parameter gradients over the tokens of a lane.
template <int kTaps>
struct TapGradients {
  FloatVec weight[kTaps];
  FloatVec bias = hn::Zero(FloatTag());

  HWY_INLINE TapGradients() {
    for (FloatVec& sum : weight) sum = hn::Zero(FloatTag());
  }
  HWY_INLINE void add(FloatVec d_sum, const FloatVec (&window)[kTaps]) {
    bias = hn::Add(bias, d_sum);
    HWY_UNROLL(8)
    for (int k = 0; k < kTaps; ++k) weight[k] = hn::MulAdd(d_sum, window[k], weight[k]);
  }
  HWY_INLINE void add_to(const View<float, 2>& weights, const View<float, 1>& biases,
                         const Group& group) const {
    float* d_bias = biases.at(group.channel);
    store(hn::Add(load(d_bias, group.count), bias), d_bias, group.count);
    float columns[kTaps][kLanes];
    for (int k = 0; k < kTaps; ++k) store(weight[k], columns[k]);
    for (std::int64_t i = 0; i < group.count; ++i) {
      for (int k = 0; k < kTaps; ++k) weights.at(group.channel + i)[k] += columns[k][i];
    }
  }
};

/// In walking order: with d_s_t = d_out_t silu'(s_t), the gradient of the input K - 1 tokens back is
/// complete, sum_k weight[k] d_s, as soon as d_s_t is known. Past the last token K - 1 more steps with d_s =
/// 0 follow, in which the gradient of the final state, which holds these inputs, is added. Inputs before the
/// chunk are the initial state.
template <int kTaps, class T>
void backward_group(const CausalConvInput<T>& input, const CausalConvGradient<T>& gradient, std::int64_t lane,
                    const Group& group) {
  constexpr int kHistory = kTaps - 1;
  const Taps<kTaps> taps(input.weight, input.bias, group);
  TapGradients<kTaps> d_taps;
  FloatVec window[kTaps];
  FloatVec d_sums[kTaps];
  FloatVec d_final[kHistory];
  for (int k = 0; k < kHistory; ++k) {
    window[k] = load(input.state.at(lane, k, group.channel), group.count);
    d_sums[k] = hn::Zero(FloatTag());
    d_final[k] = load(gradient.d_state.at(lane, k, group.channel), group.count);
  }
  const std::int64_t valid = *input.valid.at(lane);
  const TokenOrder order(input.direction, valid);
  const GroupRows x_rows(input.x, lane, order, 0, group);
  const GroupRows d_out_rows(gradient.d_out, lane, order, 0, group);
  const GroupRows d_x_rows(gradient.d_x, lane, order, 0, group);
  const auto put = [&](std::int64_t t, FloatVec d_input) HWY_ATTR {
    if (t < kHistory) return store(d_input, gradient.d_state.at(lane, t, group.channel), group.count);
    d_x_rows.put(d_input, t - kHistory);
  };
  for (std::int64_t t = 0; t < valid; ++t) {
    x_rows.fetch_next_group(t);
    d_out_rows.fetch_next_group(t);
    d_x_rows.fetch_next_group(t);
    window[kHistory] = x_rows.get(t);
    const FloatVec sum = taps.convolve(window);
    d_sums[kHistory] = hn::Mul(d_out_rows.get(t), silu_slope(sum, sigmoid(sum)));
    d_taps.add(d_sums[kHistory], window);
    put(t, taps.correlate(d_sums));
    shift(window);
    shift(d_sums);
  }
  for (int k = 0; k < kHistory; ++k) {
    d_sums[kHistory] = hn::Zero(FloatTag());
    put(valid + k, hn::Add(taps.correlate(d_sums), d_final[k]));
    shift(d_sums);
  }
  d_taps.add_to(gradient.d_weight, gradient.d_bias, group);
}

/// The group functions for K = kFewestConvTaps to kMostConvTaps.
template <class T>
constexpr std::array kForwardGroup{forward_group<2, T>, forward_group<3, T>, forward_group<4, T>,
                                   forward_group<5, T>, forward_group<6, T>, forward_group<7, T>,
                                   forward_group<8, T>};
template <class T>
constexpr std::array kBackwardGroup{backward_group<2, T>, backward_group<3, T>, backward_group<4, T>,
                                    backward_group<5, T>, backward_group<6, T>, backward_group<7, T>,
                                    backward_group<8, T>};
static_assert(kForwardGroup<float>.size() == kMostConvTaps - kFewestConvTaps + 1);
static_assert(kBackwardGroup<float>.size() == kMostConvTaps - kFewestConvTaps + 1);

template <class T>
void forward(const CausalConvInput<T>& input, const View<T, 3>& out, const View<float, 3>& state) {
  const auto [lanes, tokens, channels] = input.x.shape;
  const auto group_function = kForwardGroup<T>[input.weight.shape[1] - kFewestConvTaps];
  for (std::int64_t lane = 0; lane < lanes; ++lane) {
    assert(*input.valid.at(lane) >= 0 && *input.valid.at(lane) <= tokens);
    for (std::int64_t channel = 0; channel < channels; channel += kLanes) {
      group_function(input, out, state, lane, group_at(channel, channels));
    }
    clear_rows(out, lane, *input.valid.at(lane));
  }
}

template <class T>
void backward(const CausalConvInput<T>& input, const CausalConvGradient<T>& gradient) {
  const auto [lanes, tokens, channels] = input.x.shape;
  const auto group_function = kBackwardGroup<T>[input.weight.shape[1] - kFewestConvTaps];
  for (std::int64_t lane = 0; lane < lanes; ++lane) {
    assert(*input.valid.at(lane) >= 0 && *input.valid.at(lane) <= tokens);
    for (std::int64_t channel = 0; channel < channels; channel += kLanes) {
      group_function(input, gradient, lane, group_at(channel, channels));
    }
    clear_rows(gradient.d_x, lane, *input.valid.at(lane));
  }
}

void forward_float(const CausalConvInput<float>& input, const View<float, 3>& out,
                   const View<float, 3>& state) {
  forward(input, out, state);
}
void forward_bfloat16(const CausalConvInput<bfloat16>& input, const View<bfloat16, 3>& out,
                      const View<float, 3>& state) {
  forward(input, out, state);
}
void backward_float(const CausalConvInput<float>& input, const CausalConvGradient<float>& gradient) {
  backward(input, gradient);
}
void backward_bfloat16(const CausalConvInput<bfloat16>& input, const CausalConvGradient<bfloat16>& gradient) {
  backward(input, gradient);
}

}  // namespace
}  // namespace longstrand::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstrand::cpu {

HWY_EXPORT(forward_float);
HWY_EXPORT(forward_bfloat16);
HWY_EXPORT(backward_float);
HWY_EXPORT(backward_bfloat16);

template <>
void causal_conv_forward(const CausalConvInput<float>& input, View<float, 3> out, View<float, 3> state) {
  HWY_DYNAMIC_DISPATCH(forward_float)(input, out, state);
}
template <>
void causal_conv_forward(const CausalConvInput<bfloat16>& input, View<bfloat16, 3> out,
                         View<float, 3> state) {
  HWY_DYNAMIC_DISPATCH(forward_bfloat16)(input, out, state);
}
template <>
void causal_conv_backward(const CausalConvInput<float>& input, const CausalConvGradient<float>& gradient) {
  HWY_DYNAMIC_DISPATCH(backward_float)(input, gradient);
}
template <>
void causal_conv_backward(const CausalConvInput<bfloat16>& input,
                          const CausalConvGradient<bfloat16>& gradient) {
  HWY_DYNAMIC_DISPATCH(backward_bfloat16)(input, gradient);
}

}  // namespace longstrand::cpu
#endif  // HWY_ONCE
