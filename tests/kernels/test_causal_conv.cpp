// The causal convolution against the float64 reference, and what must hold whatever the numbers are.
#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <numeric>

#include "kernels/causal_conv.hpp"
#include "tests/support/directions.hpp"
#include "tests/support/each_target.hpp"
#include "tests/support/guarded.hpp"
#include "tests/support/random.hpp"
#include "tests/support/reference_conv.hpp"
#include "tests/support/tolerances.hpp"

namespace longstrand {
namespace {

using reference::Doubles;

struct Case {
  std::int64_t lanes, tokens, channels, taps;  // B, T, D, K
  std::vector<std::int64_t> valid;             // by lane
  std::int64_t gap;                            // elements between rows
  const char* reason;
};

const Case kCases[] = {
    {1, 1, 1, 2, {1}, 0, "the smallest"},
    {4, 3, 5, 4, {0, 1, 2, 3}, 0, "chunks shorter than the kernel: the state is older inputs, shifted"},
    {4, 4, 16, 4, {3, 4, 0, 1}, 2, "as long as the kernel and one less"},
    {2, 64, 32, 4, {64, 64}, 0, "whole vectors"},
    {2, 40, 33, 3, {40, 17}, 3, "one channel more than vectors; rows apart"},
    {1, 20, 20, 5, {20}, 0, "odd number of taps"},
    {1, 20, 7, 6, {19}, 1, "even number of taps"},
    {1, 20, 20, 7, {20}, 0, "7 taps"},
    {2, 9, 20, 8, {9, 5}, 0, "the most taps, and fewer tokens than taps"},
    {2, 100, 20, 2, {100, 41}, 0, "many times as long as 2 taps"},
    {2, 100, 20, 5, {100, 41}, 0, "as 5"},
    {2, 100, 20, 6, {100, 41}, 0, "as 6"},
    {2, 100, 20, 7, {100, 41}, 0, "as 7"},
    {2, 100, 20, 8, {100, 41}, 0, "as 8"},
};

template <class T>
View<T, 3> tokens_of(View<T, 3> x, std::int64_t begin, std::int64_t count) {
  x.data += begin * x.stride[1];
  x.shape[1] = count;
  return x;
}

/// Operands and results of one convolution. Padding rows of the operands are NaN: they must not be used.
template <class T>
struct Conv {
  std::int64_t lanes, tokens, channels, taps;
  Direction direction;
  Guarded<T, 3> x;
  Guarded<float, 2> weight;
  Guarded<float, 1> bias;
  Guarded<float, 3> initial;
  Guarded<std::int64_t, 1> valid;
  Guarded<T, 3> out;
  Guarded<float, 3> state;
  Guarded<T, 3> d_out, d_x;
  Guarded<float, 2> d_weight;
  Guarded<float, 1> d_bias;
  Guarded<float, 3> d_state;
  Context context{device_under_test()};

  explicit Conv(const Case& c, Direction walk = Direction::forward)
      : lanes(c.lanes),
        tokens(c.tokens),
        channels(c.channels),
        taps(c.taps),
        direction(walk),
        x({lanes, tokens, channels}, c.gap),
        weight({channels, taps}, c.gap),
        bias({channels}),
        initial({lanes, taps - 1, channels}, c.gap),
        valid({lanes}),
        out({lanes, tokens, channels}, c.gap),
        state({lanes, taps - 1, channels}, c.gap),
        d_out({lanes, tokens, channels}, c.gap),
        d_x({lanes, tokens, channels}, c.gap),
        d_weight({channels, taps}, c.gap),
        d_bias({channels}),
        d_state({lanes, taps - 1, channels}, c.gap) {
    Random random(3);
    const auto normal = [&] { return random.normal(); };
    x.fill(normal), d_out.fill(normal);
    weight.fill(normal), bias.fill(normal), initial.fill(normal);
    d_weight.fill(normal), d_bias.fill(normal), d_state.fill(normal);
    valid.assign({c.valid.begin(), c.valid.end()});
    for (Guarded<T, 3>* operand : {&x, &d_out}) {
      const View<T, 3> rows = operand->host();
      for (std::int64_t lane = 0; lane < lanes; ++lane) {
        for (std::int64_t t = c.valid[lane]; t < tokens; ++t) {
          std::fill_n(rows.at(lane, t), channels, from_double<T>(std::numeric_limits<double>::quiet_NaN()));
        }
      }
    }
  }

  reference::ConvOperands operands() const {
    const Doubles counts = valid.values();
    return {lanes,         tokens,           channels,
            taps,          x.values(),       weight.values(),
            bias.values(), initial.values(), {counts.begin(), counts.end()},
            direction};
  }

  CausalConvInput<T> input(std::int64_t begin, std::int64_t count, View<const float, 3> start,
                           View<const std::int64_t, 1> valid_here) {
    return {.x = tokens_of<T>(x, begin, count),
            .weight = weight,
            .bias = bias,
            .state = start,
            .valid = valid_here,
            .direction = direction};
  }
  CausalConvGradient<T> gradient(std::int64_t begin, std::int64_t count) {
    return {.d_out = tokens_of<T>(d_out, begin, count),
            .d_x = tokens_of<T>(d_x, begin, count),
            .d_weight = d_weight,
            .d_bias = d_bias,
            .d_state = d_state};
  }
  void run_forward() { causal_conv_forward<T>(input(0, tokens, initial, valid), out, state, context); }
  void run_backward() {
    causal_conv_backward<T>(input(0, tokens, initial, valid), gradient(0, tokens), context);
  }

  /// Both passes in chunks of `size` tokens: the state handed on in place, and its gradient back.
  void run_in_chunks(std::int64_t size) {
    struct Chunk {
      std::int64_t begin, count;
      Guarded<std::int64_t, 1> valid;
      Guarded<float, 3> start;
    };
    std::vector<std::unique_ptr<Chunk>> chunks;
    const Doubles counts = valid.values();
    state.assign(initial.values());
    for (const std::int64_t begin : chunk_begins(tokens, size, direction)) {
      const std::int64_t count = std::min(size, tokens - begin);
      chunks.emplace_back(new Chunk{begin, count, Guarded<std::int64_t, 1>({lanes}),
                                    Guarded<float, 3>({lanes, taps - 1, channels})});
      Chunk& chunk = *chunks.back();
      chunk.start.assign(state.values());
      chunk.valid.fill([&, lane = 0]() mutable {
        return static_cast<double>(
            std::clamp<std::int64_t>(static_cast<std::int64_t>(counts[lane++]) - begin, 0, count));
      });
      causal_conv_forward<T>(input(begin, count, state, chunk.valid), tokens_of<T>(out, begin, count), state,
                             context);
    }
    for (; !chunks.empty(); chunks.pop_back()) {
      Chunk& chunk = *chunks.back();
      causal_conv_backward<T>(input(chunk.begin, chunk.count, chunk.start, chunk.valid),
                              gradient(chunk.begin, chunk.count), context);
    }
  }
  reference::ConvGradients gradients() const {
    return {d_x.values(), d_weight.values(), d_bias.values(), d_state.values()};
  }
};

void expect_gradients(const reference::ConvGradients& actual, const reference::ConvGradients& expected,
                      Tolerance activations, Tolerance parameters) {
  expect_near("d_x", actual.x, expected.x, activations);
  expect_near("d_weight", actual.weight, expected.weight, parameters);
  expect_near("d_bias", actual.bias, expected.bias, parameters);
  expect_near("d_state", actual.state, expected.state, parameters);
}

void add(Doubles& sum, const Doubles& value) {
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += value[i];
}

template <class T>
void expect_reference(const Case& c, Direction direction) {
  SCOPED_TRACE(direction_name(direction));
  Conv<T> conv(c, direction);
  auto expected_gradients =
      reference::causal_conv_backward(conv.operands(), conv.d_out.values(), conv.d_state.values());
  add(expected_gradients.weight, conv.d_weight.values());  // what was there is kept
  add(expected_gradients.bias, conv.d_bias.values());
  conv.run_forward();
  conv.run_backward();
  const auto expected = reference::causal_conv(conv.operands());
  expect_near("out", conv.out.values(), expected.out, forward_tolerance<T>());
  expect_near("state", conv.state.values(), expected.state, tolerance::kExact);
  expect_gradients(conv.gradients(), expected_gradients, backward_tolerance<T>(), tolerance::kBackward);
}

LONGSTRAND_DEVICE_TEST(CausalConv, AgreesWithTheReference) {
  on_each_target([] {
    for (const Case& c : kCases) {
      SCOPED_TRACE(c.reason);
      for (const Direction direction : kDirections) {
        expect_reference<float>(c, direction);
        expect_reference<bfloat16>(c, direction);
      }
    }
  });
}

/// d loss / d x[i] for loss = sum(out * d_out) + sum(state * d_state), by differences.
Doubles differences(reference::ConvOperands& op, Doubles& x, const Doubles& d_out, const Doubles& d_state) {
  const auto loss = [&] {
    const auto result = reference::causal_conv(op);
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
  for (const std::int64_t tokens : {2, 6}) {  // fewer tokens than the state holds, and more
    SCOPED_TRACE(tokens);
    Conv<float> conv({2, tokens, 3, 4, {tokens, tokens}, 0, ""}, direction);
    conv.d_weight.fill([] { return 0; });
    conv.d_bias.fill([] { return 0; });
    auto op = conv.operands();
    const Doubles d_out = conv.d_out.values(), d_state = conv.d_state.values();
    const auto slope = [&](Doubles& x) { return differences(op, x, d_out, d_state); };
    const reference::ConvGradients expected{slope(op.x), slope(op.weight), slope(op.bias), slope(op.state)};
    expect_gradients(reference::causal_conv_backward(op, d_out, d_state), expected, tolerance::kDifferences,
                     tolerance::kDifferences);
    conv.run_backward();
    expect_gradients(conv.gradients(), expected, tolerance::kBackward, tolerance::kBackward);
  }
}

LONGSTRAND_DEVICE_TEST(CausalConv, GradientsAreThoseOfTheReferenceByDifferences) {
  for (const Direction direction : kDirections) expect_gradients_by_differences(direction);
}

void expect_any_split_is_one_pass(Direction direction) {
  SCOPED_TRACE(direction_name(direction));
  const Case c{2, 1100, 20, 4, {1100, 777}, 0, ""};
  Conv<float> whole(c, direction);
  whole.run_forward();
  whole.run_backward();
  for (const std::int64_t size : {1, 2, 3, 7, 64, 1000, 1100}) {
    SCOPED_TRACE(size);
    Conv<float> split(c, direction);
    split.run_in_chunks(size);
    expect_near("out", split.out.values(), whole.out.values(), tolerance::kExact);
    expect_near("state", split.state.values(), whole.state.values(), tolerance::kExact);
    expect_gradients(split.gradients(), whole.gradients(), tolerance::kChunkBackward,
                     tolerance::kChunkBackward);
  }
}

LONGSTRAND_DEVICE_TEST(CausalConv, AnySplitIntoChunksIsOnePass) {
  on_each_target([] {
    for (const Direction direction : kDirections) expect_any_split_is_one_pass(direction);
  });
}

LONGSTRAND_DEVICE_TEST(CausalConv, ReverseIsForwardOverFlippedTokens) {
  on_each_target([] {
    const Case c{3, 150, 33, 4, {150, 61, 2}, 0, ""};
    Conv<float> reverse(c, Direction::reverse), forward(c);
    const Doubles valid = forward.valid.values();
    forward.x.assign(flipped(reverse.x, valid));
    forward.d_out.assign(flipped(reverse.d_out, valid));
    for (Conv<float>* conv : {&reverse, &forward}) conv->run_forward(), conv->run_backward();
    expect_near("out", reverse.out.values(), flipped(forward.out, valid), tolerance::kExact);
    expect_near("state", reverse.state.values(), forward.state.values(), tolerance::kExact);
    auto expected = forward.gradients();
    expected.x = flipped(forward.d_x, valid);
    expect_gradients(reverse.gradients(), expected, tolerance::kExact, tolerance::kExact);
  });
}

LONGSTRAND_DEVICE_TEST(CausalConv, ExchangedLanesExchangeTheResults) {
  Conv<float> one({2, 50, 24, 4, {50, 2}, 0, ""}), other({2, 50, 24, 4, {2, 50}, 0, ""});
  const auto exchange = [](auto& to, const auto& from) {
    Doubles values = from.values();
    std::rotate(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2),
                values.end());
    to.assign(values);
  };
  exchange(other.x, one.x), exchange(other.initial, one.initial);
  exchange(other.d_out, one.d_out), exchange(other.d_state, one.d_state);
  for (Conv<float>* conv : {&one, &other}) conv->run_forward(), conv->run_backward();
  Conv<float> back({2, 50, 24, 4, {50, 2}, 0, ""});
  exchange(back.out, other.out), exchange(back.state, other.state);
  exchange(back.d_x, other.d_x), exchange(back.d_state, other.d_state);
  expect_near("out", back.out.values(), one.out.values(), tolerance::kExact);
  expect_near("state", back.state.values(), one.state.values(), tolerance::kExact);
  expect_near("d_x", back.d_x.values(), one.d_x.values(), tolerance::kExact);
  expect_near("d_state", back.d_state.values(), one.d_state.values(), tolerance::kExact);
}

LONGSTRAND_DEVICE_TEST(CausalConv, RefusesOperandsThatDoNotFit) {
  Conv<float> conv({1, 8, 16, 4, {8}, 0, ""});
  auto input = conv.input(0, 8, conv.initial, conv.valid);
  input.weight = input.weight.columns(0, 3);
  EXPECT_THROW(causal_conv_forward<float>(input, conv.out, conv.state, conv.context), std::logic_error);
  input.weight = input.weight.columns(0, 1);
  EXPECT_THROW(causal_conv_forward<float>(input, conv.out, conv.state, conv.context), std::logic_error);
}

}  // namespace
}  // namespace longstrand
