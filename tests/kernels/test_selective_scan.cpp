// The selective scan against the float64 reference, and what must hold whatever the numbers are.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/selective_scan.hpp"
#include "tests/kernels/scan_under_test.hpp"
#include "tests/support/each_target.hpp"
#include "tests/support/random.hpp"
#include "tests/support/reference_scan.hpp"
#include "tests/support/tolerances.hpp"

namespace longstrand {
namespace {

using reference::Doubles;

const ScanCase kCases[] = {
    {1, 1, 1, 1, {}, 0, "the smallest"},
    {1, 5, 3, 2, {}, 0, "less than a vector, states one by one"},
    {2, 64, 32, 16, {}, 0, "whole vectors, the states of one register block, two segments"},
    {1, 33, 17, 16, {}, 3, "one more than a segment, than a vector; rows apart"},
    {3, 40, 20, 7, {40, 0, 33}, 1, "7 = 4 + 1 + 1 + 1 states; an empty lane, one that ends in a new segment"},
    {2, 32, 48, 24, {32, 31}, 5, "24 = 16 + 8 states; valid at and just below a segment's end"},
    {1, 100, 40, 64, {97}, 0, "many states"},
    {2, 200, 144, 16, {200, 60}, 0, "segments of a GPU and channels of two blocks; a lane in the first"},
    {2, 3, 16, 16, {0, 0}, 0, "nothing but padding"},
};

template <class Actual, class Expected>
void expect_gradients(const Actual& actual, const Expected& expected, Tolerance activations,
                      Tolerance parameters) {
  expect_near("d_u", actual.u, expected.u, activations);
  expect_near("d_delta", actual.delta, expected.delta, activations);
  expect_near("d_z", actual.z, expected.z, activations);
  expect_near("d_b", actual.b, expected.b, activations);
  expect_near("d_c", actual.c, expected.c, activations);
  expect_near("d_a_log", actual.a_log, expected.a_log, parameters);
  expect_near("d_d", actual.d, expected.d, parameters);
  expect_near("d_delta_bias", actual.delta_bias, expected.delta_bias, parameters);
  expect_near("d_state", actual.state, expected.state, parameters);
}

void add(Doubles& sum, const Doubles& value) {
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += value[i];
}

template <class T>
Tolerance activation_gradient_tolerance(const ScanCase& c) {
  const bool many_states = std::is_same_v<T, bfloat16> && c.states > 16;
  return many_states ? tolerance::kBackwardManyStatesBFloat16 : backward_tolerance<T>();
}

/// Of A_log, D, the bias of dt and the initial state.
template <class T>
Tolerance parameter_gradient_tolerance() {
  const bool packed = std::is_same_v<T, bfloat16> && device_under_test().kind == DeviceKind::cuda;
  return packed ? tolerance::kBackwardPackedStates : tolerance::kBackward;
}

template <class T>
void expect_forward(Scan<T>& scan) {
  scan.run_forward();
  const auto expected = reference::selective_scan(scan.operands());
  expect_near("out", scan.out.values(), expected.out, forward_tolerance<T>());
  expect_near("state", scan.state.values(), expected.state, tolerance::kForward);
}

template <class T>
void expect_reference(const ScanCase& c, Direction direction) {
  SCOPED_TRACE(direction_name(direction));
  Scan<T> scan(c, direction);
  const Doubles d_out = scan.d_out.values();
  auto expected_gradients = reference::selective_scan_backward(scan.operands(), d_out, scan.d_state.values());
  add(expected_gradients.a_log, scan.d_a_log.values());  // what was there is kept
  add(expected_gradients.d, scan.d_d.values());
  add(expected_gradients.delta_bias, scan.d_delta_bias.values());

  expect_forward(scan);
  scan.run_backward();
  expect_gradients(scan.gradients(), expected_gradients, activation_gradient_tolerance<T>(c),
                   parameter_gradient_tolerance<T>());
}

LONGSTRAND_DEVICE_TEST(SelectiveScan, AgreesWithTheReference) {
  on_each_target([] {
    for (const ScanCase& c : kCases) {
      SCOPED_TRACE(c.reason);
      for (const Direction direction : kDirections) {
        expect_reference<float>(c, direction);
        expect_reference<bfloat16>(c, direction);
      }
    }
  });
}

/// Where a GPU's segments are long, a segment is walked by several blocks, one after the other.
LONGSTRAND_CUDA_TEST(SelectiveScan, HandsItsStateFromBlockToBlock) {
  Context context{device_under_test()};
  ScanCase c{1, 2100, 2, 24, {}, 0, ""};
  const auto segments = [&] { return scan_segment_count(c.lanes, c.tokens, c.channels, context); };
  while (segments() > 2) ++c.lanes;
  ASSERT_EQ(segments(), 2);
  c.valid.assign(static_cast<std::size_t>(c.lanes), c.tokens);
  const std::int64_t ends[] = {0, 1, 143, 144, 145, 700, 1055, 1056, 1057, 1199, 1200, 1201, 2099};
  std::copy_n(std::begin(ends), std::min(std::ssize(ends), std::ssize(c.valid)), c.valid.begin());
  for (const Direction direction : kDirections) {
    SCOPED_TRACE(direction_name(direction));
    Scan<float> scan(c, direction);
    expect_forward(scan);
    Scan<bfloat16> rounded(c, direction);
    expect_forward(rounded);
  }
}

/// Channels from those that forget in a token to those that never do, the segments of a GPU among them, with
/// steps that are now and then much longer than usual.
template <class T>
void expect_any_pace(const ScanCase& c, Direction direction) {
  SCOPED_TRACE(direction_name(direction));
  Scan<T> scan(c, direction);
  Random random(3);
  Doubles pace(static_cast<std::size_t>(c.channels));
  for (double& value : pace) value = std::exp(random.uniform(std::log(1e-5), std::log(0.5)));
  Doubles dt = scan.dt.values();
  for (std::size_t i = 0; i < dt.size(); ++i) {
    if (std::isnan(dt[i])) continue;
    dt[i] = pace[i % pace.size()] * random.uniform(0.3, 1.7) * (random.uniform(0, 1) < 0.01 ? 40 : 1);
  }
  scan.dt.assign(dt);
  const auto gradients =
      reference::selective_scan_backward(scan.operands(), scan.d_out.values(), scan.d_state.values());
  const auto expected = reference::selective_scan(scan.operands());
  scan.run_forward();
  expect_near("out", scan.out.values(), expected.out, forward_tolerance<T>());
  expect_near("state", scan.state.values(), expected.state, state_tolerance<T>());
  scan.run_backward();
  const Tolerance activations = activation_gradient_tolerance<T>(c);
  expect_near("d_u", scan.d_u.values(), gradients.u, activations);
  expect_near("d_delta", scan.d_delta.values(), gradients.delta, activations);
  expect_near("d_b", scan.d_b.values(), gradients.b, activations);
  expect_near("d_state", scan.d_state.values(), gradients.state, state_tolerance<T>());
}

LONGSTRAND_DEVICE_TEST(SelectiveScan, AgreesWithTheReferenceAtAnyPace) {
  for (const ScanCase& c : {ScanCase{1, 1500, 136, 16, {}, 0, "channels of 4 1/4 warps"},
                            ScanCase{3, 777, 40, 16, {777, 5, 401}, 8, "padding; rows apart"},
                            ScanCase{1, 900, 32, 20, {}, 4, "two groups of states, one of 4"}}) {
    SCOPED_TRACE(c.reason);
    for (const Direction direction : kDirections) {
      expect_any_pace<float>(c, direction);
      expect_any_pace<bfloat16>(c, direction);
    }
  }
}

template <class T>
void expect_sum_of_directions(const ScanCase& c) {
  Scan<T> there(c), back(c, Direction::reverse);
  there.run_forward();
  back.run_forward();
  Doubles sum = there.out.values();
  add(sum, back.out.values());
  selective_scan_forward<T>(back.whole_input(), {.out = there.out, .state = back.state, .accumulate = true},
                            back.context);
  expect_near("out", there.out.values(), sum, forward_tolerance<T>());
}

LONGSTRAND_DEVICE_TEST(SelectiveScan, AddsToAnotherOne) {
  on_each_target([] {
    for (const ScanCase& c : kCases) {
      SCOPED_TRACE(c.reason);
      expect_sum_of_directions<float>(c);
      if (c.states <= 16) expect_sum_of_directions<bfloat16>(c);  // more are rounded once a group of 16
    }
  });
}

/// A GPU's checkpoints need not be numbers.
std::vector<std::uint32_t> bits_of(Guarded<float, 4>& checkpoints) {
  const View<float, 4> rows = checkpoints.host();
  std::vector<std::uint32_t> bits;
  for (std::int64_t i = 0; i < rows.shape[0]; ++i) {
    for (std::int64_t lane = 0; lane < rows.shape[1]; ++lane) {
      for (std::int64_t row = 0; row < rows.shape[2]; ++row) {
        for (std::int64_t d = 0; d < rows.shape[3]; ++d) {
          bits.push_back(std::bit_cast<std::uint32_t>(rows.at(i, lane, row)[d]));
        }
      }
    }
  }
  return bits;
}

/// What a scan keeps of its segments spares the next one of the same input their pass, to the same bits.
template <class T>
void expect_same_from_segment_states(const ScanCase& c, Direction direction) {
  Scan<T> scan(c, direction);
  const std::int64_t segments = scan_segment_count(c.lanes, c.tokens, c.channels, scan.context);
  ASSERT_GT(segments, 0);
  Guarded<float, 4> segment_states({segments, c.lanes, c.states, c.channels});
  scan.checkpoints.fill([] { return 0; });  // beyond the valid tokens none is written
  SelectiveScanInput<T> input = scan.whole_input();
  const auto run = [&](View<float, 4> keep) {
    selective_scan_forward<T>(
        input,
        {.out = scan.out, .state = scan.state, .checkpoints = scan.checkpoints, .segment_states = keep},
        scan.context);
  };
  run(segment_states);
  const Doubles out = scan.out.values(), state = scan.state.values();
  const std::vector<std::uint32_t> checkpoints = bits_of(scan.checkpoints);
  scan.out.fill([] { return 7; });
  input.segment_states = segment_states;
  run({});
  expect_near("out", scan.out.values(), out, tolerance::kExact);
  EXPECT_EQ(bits_of(scan.checkpoints), checkpoints);
  expect_near("state", scan.state.values(), state, state_tolerance<T>());
}

LONGSTRAND_CUDA_TEST(SelectiveScan, IsTheSameFromKeptSegmentStates) {
  for (const ScanCase& c :
       {ScanCase{1, 700, 40, 16, {}, 0, ""}, ScanCase{3, 500, 144, 24, {500, 0, 77}, 0, ""}}) {
    for (const Direction direction : kDirections) {
      expect_same_from_segment_states<float>(c, direction);
      expect_same_from_segment_states<bfloat16>(c, direction);
    }
  }
}

/// d loss / d x[i] for loss = sum(out * d_out) + sum(state * d_state), by differences.
Doubles differences(reference::ScanOperands& op, Doubles& x, const Doubles& d_out, const Doubles& d_state) {
  const auto loss = [&] {
    const auto result = reference::selective_scan(op);
    return std::inner_product(d_state.begin(), d_state.end(), result.state.begin(),
                              std::inner_product(d_out.begin(), d_out.end(), result.out.begin(), 0.0));
  };
  constexpr double kStep = 1e-5;
  Doubles slope;
  for (double& value : x) {
    const double kept = value;
    value = kept + kStep;
    const double above = loss();
    value = kept - kStep;
    slope.push_back((above - loss()) / (2 * kStep));
    value = kept;
  }
  return slope;
}

void expect_gradients_by_differences(Direction direction) {
  SCOPED_TRACE(direction_name(direction));
  Scan<float> scan({2, 6, 3, 2, {6, 4}, 0, ""}, direction);
  for (Guarded<float, 3>* x : {&scan.u, &scan.dt, &scan.z, &scan.b, &scan.c, &scan.d_out}) {
    Doubles values = x->values();
    for (double& value : values) value = std::isnan(value) ? 0 : value;
    x->assign(values);  // the differences also step the padding: its slope must be 0
  }
  scan.d_a_log.fill([] { return 0; });
  scan.d_d.fill([] { return 0; });
  scan.d_delta_bias.fill([] { return 0; });
  auto op = scan.operands();
  const Doubles d_out = scan.d_out.values(), d_state = scan.d_state.values();
  const auto slope = [&](Doubles& x) { return differences(op, x, d_out, d_state); };
  Doubles d_delta = slope(op.dt), d_delta_bias(scan.channels);
  for (std::size_t i = 0; i < d_delta.size(); ++i) {
    d_delta[i] *= -std::expm1(-op.dt[i]);
    d_delta_bias[i % d_delta_bias.size()] += d_delta[i];
  }
  const reference::ScanGradients expected{slope(op.u), d_delta,      slope(op.z),
                                          slope(op.b), slope(op.c),  slope(op.a_log),
                                          slope(op.d), d_delta_bias, slope(op.state)};
  expect_gradients(reference::selective_scan_backward(op, d_out, d_state), expected, tolerance::kDifferences,
                   tolerance::kDifferences);
  scan.run_forward();
  scan.run_backward();
  expect_gradients(scan.gradients(), expected, tolerance::kBackward, tolerance::kBackward);
}

LONGSTRAND_DEVICE_TEST(SelectiveScan, GradientsAreThoseOfTheReferenceByDifferences) {
  for (const Direction direction : kDirections) expect_gradients_by_differences(direction);
}

void expect_any_split_is_one_pass(Direction direction) {
  SCOPED_TRACE(direction_name(direction));
  const ScanCase c{2, 1100, 20, 16, {1100, 777}, 0, ""};
  Scan<float> whole(c, direction);
  whole.run_forward();
  whole.run_backward();
  for (const std::int64_t size : {1, 7, 64, 1000, 1100}) {
    SCOPED_TRACE(size);
    Scan<float> split(c, direction);
    split.run_in_chunks(size);
    expect_near("out", split.out.values(), whole.out.values(), tolerance::kChunkForward);
    expect_near("state", split.state.values(), whole.state.values(), tolerance::kChunkForward);
    expect_gradients(split.gradients(), whole.gradients(), tolerance::kChunkBackward,
                     tolerance::kChunkBackward);
  }
}

LONGSTRAND_DEVICE_TEST(SelectiveScan, AnySplitIntoChunksIsOnePass) {
  on_each_target([] {
    for (const Direction direction : kDirections) expect_any_split_is_one_pass(direction);
  });
}

LONGSTRAND_DEVICE_TEST(SelectiveScan, ReverseIsForwardOverFlippedTokens) {
  on_each_target([] {
    const ScanCase c{2, 200, 33, 16, {200, 60}, 0, ""};
    Scan<float> reverse(c, Direction::reverse), forward(c);
    const Doubles valid = forward.valid.values();
    const auto flip = [&](auto& to, const auto& from) { to.assign(flipped(from, valid)); };
    flip(forward.u, reverse.u), flip(forward.dt, reverse.dt), flip(forward.z, reverse.z);
    flip(forward.b, reverse.b), flip(forward.c, reverse.c), flip(forward.d_out, reverse.d_out);
    for (Scan<float>* scan : {&reverse, &forward}) scan->run_forward(), scan->run_backward();
    // A GPU may take other segments of the chunk, and add them up in another order.
    const bool cpu = device_under_test().kind == DeviceKind::cpu;
    const Tolerance ahead = cpu ? tolerance::kExact : tolerance::kChunkForward;
    const Tolerance back = cpu ? tolerance::kExact : tolerance::kChunkBackward;
    expect_near("out", reverse.out.values(), flipped(forward.out, valid), ahead);
    expect_near("state", reverse.state.values(), forward.state.values(), ahead);
    auto expected = forward.gradients();
    expected.u = flipped(forward.d_u, valid), expected.delta = flipped(forward.d_delta, valid);
    expected.z = flipped(forward.d_z, valid), expected.b = flipped(forward.d_b, valid);
    expected.c = flipped(forward.d_c, valid);
    expect_gradients(reverse.gradients(), expected, back, back);
  });
}

LONGSTRAND_DEVICE_TEST(SelectiveScan, ExchangedLanesExchangeTheResults) {
  const ScanCase straight{2, 50, 24, 16, {50, 41}, 0, ""};
  const ScanCase exchanged{2, 50, 24, 16, {41, 50}, 0, ""};
  const auto exchange = [](auto& to, const auto& from) {
    Doubles values = from.values();
    std::rotate(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2),
                values.end());
    to.assign(values);
  };
  Scan<float> one(straight), other(exchanged);
  exchange(other.u, one.u), exchange(other.dt, one.dt), exchange(other.z, one.z);
  exchange(other.b, one.b), exchange(other.c, one.c), exchange(other.initial, one.initial);
  exchange(other.d_out, one.d_out), exchange(other.d_state, one.d_state);
  for (Scan<float>* scan : {&one, &other}) scan->run_forward(), scan->run_backward();
  Scan<float> back(straight);
  exchange(back.out, other.out), exchange(back.state, other.state), exchange(back.d_u, other.d_u);
  exchange(back.d_b, other.d_b), exchange(back.d_state, other.d_state);
  expect_near("out", back.out.values(), one.out.values(), tolerance::kExact);
  expect_near("state", back.state.values(), one.state.values(), tolerance::kExact);
  expect_near("d_u", back.d_u.values(), one.d_u.values(), tolerance::kExact);
  expect_near("d_b", back.d_b.values(), one.d_b.values(), tolerance::kExact);
  expect_near("d_state", back.d_state.values(), one.d_state.values(), tolerance::kExact);
  expect_near("d_a_log", other.d_a_log.values(), one.d_a_log.values(), tolerance::kBackward);
}

LONGSTRAND_DEVICE_TEST(SelectiveScan, ZeroStepsLeaveTheState) {
  on_each_target([] {
    Scan<float> scan({1, 70, 20, 16, {}, 0, ""});
    scan.dt.fill([] { return 0; });
    scan.run_forward();
    expect_near("state", scan.state.values(), scan.initial.values(), tolerance::kExact);
    const Doubles d_y_free = scan.d_state.values();
    scan.d_out.fill([] { return 0; });
    scan.run_backward();
    expect_near("d_state", scan.d_state.values(), d_y_free, tolerance::kExact);
  });
}

LONGSTRAND_DEVICE_TEST(SelectiveScan, PaddingIsAsIfItWereNotThere) {
  const ScanCase padded{1, 90, 20, 16, {45}, 0, ""};
  const ScanCase exact{1, 45, 20, 16, {}, 0, ""};
  Scan<float> longer(padded), shorter(exact);
  const auto cut = [](auto& to, const auto& from) {
    Doubles values = from.values();
    values.resize(values.size() / 2);
    to.assign(values);
  };
  cut(shorter.u, longer.u), cut(shorter.dt, longer.dt), cut(shorter.z, longer.z);
  cut(shorter.b, longer.b), cut(shorter.c, longer.c), cut(shorter.d_out, longer.d_out);
  const auto same = [](auto& to, const auto& from) { to.assign(from.values()); };
  same(shorter.decay, longer.decay), same(shorter.d, longer.d), same(shorter.initial, longer.initial);
  same(shorter.d_state, longer.d_state);
  same(shorter.d_a_log, longer.d_a_log), same(shorter.d_d, longer.d_d);
  same(shorter.d_delta_bias, longer.d_delta_bias);
  for (Scan<float>* scan : {&longer, &shorter}) scan->run_forward(), scan->run_backward();
  Doubles out = shorter.out.values();
  out.resize(2 * out.size(), 0.0);
  // A GPU splits a longer chunk into other segments, and adds them up in another order.
  const bool cpu = device_under_test().kind == DeviceKind::cpu;
  const Tolerance forward = cpu ? tolerance::kExact : tolerance::kChunkForward;
  const Tolerance backward = cpu ? tolerance::kExact : tolerance::kChunkBackward;
  expect_near("out", longer.out.values(), out, forward);
  expect_near("state", longer.state.values(), shorter.state.values(), forward);
  expect_near("d_state", longer.d_state.values(), shorter.d_state.values(), backward);
  expect_near("d_a_log", longer.d_a_log.values(), shorter.d_a_log.values(), backward);
}

template <class T>
void expect_no_nan_from_extremes() {
  Scan<T> scan({1, 200, 24, 16, {}, 0, ""});
  Random random(2);
  scan.dt.fill([&] { return random.uniform(0, 1) < 0.5 ? 1e4 : 0; });
  scan.z.fill([&] { return random.uniform(-1e4, 1e4); });
  scan.a_log.fill([&] { return random.uniform(-30, 40); });  // exp(40) 1e4 log2(e) overflows nothing
  prepare_decay(scan.a_log, scan.decay, scan.context);
  auto operands = scan.operands();
  const auto gradients =
      reference::selective_scan_backward(operands, scan.d_out.values(), scan.d_state.values());
  expect_forward(scan);
  scan.run_backward();
  expect_near("d_u", scan.d_u.values(), gradients.u, backward_tolerance<T>());
  for (const double value : scan.d_delta.values()) ASSERT_TRUE(std::isfinite(value));
  for (const double value : scan.d_a_log.values()) ASSERT_TRUE(std::isfinite(value));
}

LONGSTRAND_DEVICE_TEST(SelectiveScan, ExtremeOperandsGiveNoNaN) {
  on_each_target([] {
    expect_no_nan_from_extremes<float>();
    expect_no_nan_from_extremes<bfloat16>();
  });
}

TEST(ScanChannelOrder, HasWarpsAlikeAndBlocksMixed) {
  for (const std::int64_t channels : {1, 31, 64, 100, 128, 300, 512}) {
    SCOPED_TRACE(channels);
    Random random(5);
    std::vector<double> pace(static_cast<std::size_t>(channels));
    for (double& value : pace) value = random.uniform(0, 1);
    const auto order = scan_channel_order(pace);
    auto all = order;
    std::ranges::sort(all);
    for (std::int64_t d = 0; d < channels; ++d) ASSERT_EQ(all[d], d);
    auto ranked = pace;
    std::ranges::sort(ranked);
    const std::int64_t blocks = (channels / 32 + 3) / 4;
    for (std::int64_t warp = 0; warp < channels / 32; ++warp) {
      for (std::int64_t d = warp * 32 + 1; d < warp * 32 + 32; ++d) {
        ASSERT_LE(pace[order[d - 1]], pace[order[d]]);
      }
      const double slowest = pace[order[warp * 32]];
      const std::int64_t rank = std::ranges::find(ranked, slowest) - ranked.begin();
      if (channels % 128 == 0) {
        ASSERT_EQ(rank / 32, warp % 4 * blocks + warp / 4);
      }
    }
  }
}

LONGSTRAND_DEVICE_TEST(SelectiveScan, RefusesOperandsThatDoNotFit) {
  Scan<float> scan({2, 8, 16, 4, {}, 0, ""});
  const SelectiveScanOutput<float> output{.out = scan.out, .state = scan.state};
  auto input = scan.whole_input();
  input.z = input.z.columns(0, 15);
  EXPECT_THROW(selective_scan_forward(input, output, scan.context), std::logic_error);
  auto gradient = scan.gradient(0, 8, scan.checkpoints);
  gradient.checkpoints = gradient.checkpoints.columns(0, 15);
  EXPECT_THROW(selective_scan_backward(scan.whole_input(), gradient, scan.context), std::logic_error);
}

}  // namespace
}  // namespace longstrand
