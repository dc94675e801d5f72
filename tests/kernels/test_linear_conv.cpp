// Projection and convolution in one kernel against the float64 references of both. Only some GPUs and
// operands have it: elsewhere the operation must say so and leave everything as it is.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>

#include "kernels/linear_conv.hpp"
#include "tests/support/each_target.hpp"
#include "tests/support/guarded.hpp"
#include "tests/support/random.hpp"
#include "tests/support/reference_conv.hpp"
#include "tests/support/reference_linear.hpp"
#include "tests/support/tolerances.hpp"

namespace longstrand {
namespace {

using reference::Doubles;

constexpr std::int64_t kTaps = 4;

struct Case {
  std::int64_t lanes, tokens, inputs, channels;
  std::vector<std::int64_t> valid;  // of lanes; those after them are whole
  std::int64_t gap;                 // elements between rows
  const char* reason;
};

// The kernel walks along tiles of 64 tokens, in as many runs as there are multiprocessors for 128 channels.
const std::vector<Case> kCases = {
    {1, 4096, 64, 128, {}, 0, "the fewest tokens, half of the multiprocessors"},
    {1, 9000, 128, 16, {8999}, 8, "runs of two tiles, the last one cut; rows apart"},
    {16,
     320,
     256,
     136,
     {320, 0, 1, 2, 3, 61, 62, 63, 64, 65, 66, 67, 128, 129, 319},
     0,
     "lanes that end around the edges of tiles; a few channels more than a block's"},
    {33, 129, 40, 24, {129, 128, 127, 2, 65}, 0, "a token more than two tiles; less than a block of inputs"},
    {1, 20'000, 192, 8, {131}, 0, "three blocks of inputs, runs with nothing but padding"},
    {70, 100, 16, 264, {99, 3}, 0, "tiles cut in every lane, three blocks' channels"},
};

struct Results {
  Doubles u, z, state;
  Doubles x;  // empty where it was not asked for
};

/// Padding rows of the input are NaN: they must not be used.
class LinearConv {
 public:
  explicit LinearConv(const Case& c)
      : case_(c),
        input_({c.lanes, c.tokens, c.inputs}, c.gap),
        weight_({2 * c.channels, c.inputs}),
        conv_weight_({c.channels, kTaps}),
        bias_({c.channels}),
        initial_({c.lanes, kTaps - 1, c.channels}) {
    Random random(7);
    const double spread = 1 / std::sqrt(static_cast<double>(c.inputs));
    case_.valid.resize(static_cast<std::size_t>(c.lanes), c.tokens);
    input_.fill([&] { return random.normal(); });
    weight_.fill([&] { return to_double(from_double<bfloat16>(random.normal(0, spread))); });
    conv_weight_.fill([&] { return random.normal(0, 0.5); });
    bias_.fill([&] { return random.normal(); });
    initial_.fill([&] { return to_double(from_double<bfloat16>(random.normal())); });
    const View<bfloat16, 3> rows = input_.host();
    for (std::int64_t lane = 0; lane < c.lanes; ++lane) {
      for (std::int64_t t = valid(lane); t < c.tokens; ++t) {
        std::fill_n(rows.at(lane, t), c.inputs, bfloat16(std::numeric_limits<float>::quiet_NaN()));
      }
    }
    packed_.pack(weight_, false, context_);
  }

  std::int64_t valid(std::int64_t lane) const { return case_.valid[static_cast<std::size_t>(lane)]; }

  /// In chunks of so many tokens, the state handed on in place. Empty where the operation did nothing.
  Results run(std::int64_t chunk, bool keeps_x = false) {
    Guarded<bfloat16, 3> u({case_.lanes, case_.tokens, case_.channels}, case_.gap);
    Guarded<bfloat16, 3> z({case_.lanes, case_.tokens, case_.channels}, case_.gap);
    Guarded<bfloat16, 3> x({case_.lanes, case_.tokens, case_.channels}, case_.gap);
    Guarded<float, 3> state(initial_.shape());
    state.assign(initial_.values());
    std::vector<std::unique_ptr<Guarded<std::int64_t, 1>>> counts;
    for (std::int64_t begin = 0; begin < case_.tokens; begin += chunk) {
      const std::int64_t count = std::min(chunk, case_.tokens - begin);
      counts.push_back(std::make_unique<Guarded<std::int64_t, 1>>(std::array{case_.lanes}));
      counts.back()->fill([&, lane = std::int64_t{0}]() mutable {
        return static_cast<double>(std::clamp<std::int64_t>(valid(lane++) - begin, 0, count));
      });
      const LinearConvInput<bfloat16> input{.input = part<const bfloat16>(input_, begin, count),
                                            .weight = packed_,
                                            .conv_weight = conv_weight_,
                                            .conv_bias = bias_,
                                            .state = state,
                                            .valid = *counts.back()};
      const LinearConvOutput<bfloat16> output{
          .u = part<bfloat16>(u, begin, count),
          .z = part<bfloat16>(z, begin, count),
          .state = state,
          .x = keeps_x ? part<bfloat16>(x, begin, count) : View<bfloat16, 3>{}};
      if (!linear_conv_forward(input, output, context_)) {
        EXPECT_EQ(state.values(), initial_.values());
        EXPECT_TRUE(std::isnan(u.values().front()) && std::isnan(z.values().front()));
        return {};
      }
    }
    return {u.values(), z.values(), state.values(), keeps_x ? x.values() : Doubles{}};
  }

  Results expected() const {
    const reference::LinearShape shape{case_.lanes * case_.tokens, case_.inputs, 2 * case_.channels};
    const Doubles xz = reference::linear(shape, input_.values(), weight_.values());
    Doubles x, z;
    for (std::size_t i = 0; i < xz.size(); ++i) {
      const bool of_x = static_cast<std::int64_t>(i) % shape.out < case_.channels;
      (of_x ? x : z).push_back(xz[i]);
    }
    const auto conv =
        reference::causal_conv({case_.lanes, case_.tokens, case_.channels, kTaps, x, conv_weight_.values(),
                                bias_.values(), initial_.values(), case_.valid, Direction::forward});
    return {conv.out, z, conv.state, x};
  }

  /// Of the rows of a result that are no padding.
  Doubles without_padding(const Doubles& values) const {
    Doubles rest;
    const auto width = static_cast<std::ptrdiff_t>(case_.channels);
    for (std::int64_t lane = 0; lane < case_.lanes; ++lane) {
      const auto begin = values.begin() + static_cast<std::ptrdiff_t>(lane * case_.tokens) * width;
      rest.insert(rest.end(), begin, begin + static_cast<std::ptrdiff_t>(valid(lane)) * width);
    }
    return rest;
  }

 private:
  template <class T>
  static View<T, 3> part(View<T, 3> x, std::int64_t begin, std::int64_t count) {
    x.data += begin * x.stride[1];
    x.shape[1] = count;
    return x;
  }

  Case case_;
  Context context_{device_under_test()};
  Guarded<bfloat16, 3> input_;
  Guarded<float, 2> weight_, conv_weight_;
  Guarded<float, 1> bias_;
  Guarded<float, 3> initial_;
  PackedLinear<bfloat16> packed_;
};

LONGSTRAND_CUDA_TEST(LinearConv, AgreesWithTheReference) {
  for (const Case& each : kCases) {
    SCOPED_TRACE(each.reason);
    LinearConv conv(each);
    const Results actual = conv.run(each.tokens, /*keeps_x=*/true);
    ASSERT_EQ(!actual.u.empty(), takes_hopper_kernels());
    if (actual.u.empty()) continue;
    const Results expected = conv.expected();
    expect_near("u", actual.u, expected.u, tolerance::kForwardBFloat16);
    expect_near("z", conv.without_padding(actual.z), conv.without_padding(expected.z),
                tolerance::kForwardBFloat16);
    expect_near("x", conv.without_padding(actual.x), conv.without_padding(expected.x),
                tolerance::kForwardBFloat16);
    expect_near("state", actual.state, expected.state, tolerance::kForwardBFloat16);
    expect_near("u without x", conv.run(each.tokens).u, actual.u, tolerance::kExact);
  }
}

LONGSTRAND_CUDA_TEST(LinearConv, AnySplitIntoChunksIsOnePass) {
  LinearConv conv({2, 6200, 64, 32, {6200, 4100}, 0, ""});
  if (!takes_hopper_kernels()) return;
  const Results whole = conv.run(6200);
  ASSERT_FALSE(whole.u.empty());
  for (const std::int64_t chunk : {2067, 3100, 4099}) {
    SCOPED_TRACE(chunk);
    const Results split = conv.run(chunk);
    ASSERT_FALSE(split.u.empty());
    expect_near("u", split.u, whole.u, tolerance::kExact);
    expect_near("z", conv.without_padding(split.z), conv.without_padding(whole.z), tolerance::kExact);
    expect_near("state", split.state, whole.state, tolerance::kExact);
  }
}

/// No result depends on which of a GPU's warps was first.
LONGSTRAND_CUDA_TEST(LinearConv, GivesTheSameAgain) {
  LinearConv conv({1, 40'000, 256, 24, {}, 0, ""});
  if (!takes_hopper_kernels()) return;
  const Results first = conv.run(40'000);
  ASSERT_FALSE(first.u.empty());
  for (int time = 0; time < 5; ++time) {
    const Results again = conv.run(40'000);
    EXPECT_EQ(again.u, first.u);
    EXPECT_EQ(again.z, first.z);
    EXPECT_EQ(again.state, first.state);
  }
}

LONGSTRAND_DEVICE_TEST(LinearConv, RefusesOperandsThatDoNotFit) {
  Context context{device_under_test()};
  Guarded<bfloat16, 3> input({1, 5, 8}), fits({1, 5, 16}), narrow({1, 5, 8});
  Guarded<float, 2> weight({32, 8}), conv_weight({16, kTaps});
  Guarded<float, 1> bias({16});
  Guarded<float, 3> state({1, kTaps - 1, 16});
  Guarded<std::int64_t, 1> valid({1});
  for (Guarded<float, 2>* operand : {&weight, &conv_weight}) operand->fill([] { return 1.0; });
  valid.fill([] { return 5.0; });
  PackedLinear<bfloat16> packed;
  packed.pack(weight, false, context);
  const auto forward = [&](View<const bfloat16, 3> x, View<bfloat16, 3> u, View<bfloat16, 3> z) {
    const LinearConvInput<bfloat16> operands{.input = x,
                                             .weight = packed,
                                             .conv_weight = conv_weight,
                                             .conv_bias = bias,
                                             .state = state,
                                             .valid = valid};
    linear_conv_forward<bfloat16>(operands, {.u = u, .z = z, .state = state}, context);
  };
  EXPECT_THROW(forward(fits, fits, fits), std::logic_error);
  EXPECT_THROW(forward(input, narrow, fits), std::logic_error);
  EXPECT_THROW(forward(input, fits, narrow), std::logic_error);
}

}  // namespace
}  // namespace longstrand
