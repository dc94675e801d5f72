// Operands of more than 2^31 and 2^32 elements on a GPU: all zeros, but for some rows at their far end. There
// the results must be those of these rows alone.
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/adamw.hpp"
#include "kernels/causal_conv.hpp"
#include "kernels/cross_entropy.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/embedding.hpp"
#include "kernels/linear.hpp"
#include "kernels/linear_conv.hpp"
#include "kernels/next_token.hpp"
#include "kernels/pooling.hpp"
#include "kernels/rms_norm.hpp"
#include "kernels/selection.hpp"
#include "kernels/selective_scan.hpp"
#include "kernels/strands.hpp"
#include "tests/kernels/far_operands.hpp"
#include "tests/support/directions.hpp"

namespace longstrand {
namespace {

LONGSTRAND_CUDA_TEST(FarOffsets, Embedding) {
  past_32_bits(4, [](std::int64_t rows) {
    Far<std::uint8_t> tokens(rows, 1);
    tokens.fill_end(token(1));
    const Far<float> out(rows, 4);
    Both<float, 2> weight({16, 4});
    weight.fill(normal(2));
    for (const bool end : kEnds) {
      embedding_forward<float>(tokens.line(end), weight.of(end), out.lane(end), context());
    }
    out.expect_same_end("out", tolerance::kExact);
  });
}

LONGSTRAND_CUDA_TEST(FarOffsets, EmbeddingBackward) {
  past_32_bits(4, [](std::int64_t rows) {
    Far<std::uint8_t> tokens(rows, 1);
    tokens.fill_end(token(1));
    Far<float> d_out(rows, 4);
    d_out.fill_end(normal(2));
    const Both<float, 2> d_weight({16, 4});
    for (const bool end : kEnds) {
      embedding_backward(tokens.line(end), d_out.lane(end), d_weight.of(end), context());
    }
    d_weight.expect_same("d_weight", tolerance::kBackward);
  });
}

LONGSTRAND_CUDA_TEST(FarOffsets, CrossEntropy) {
  past_32_bits(16, [](std::int64_t rows) {
    Far<float> logits(rows, 16);
    logits.fill_end(normal(1));
    Far<std::int32_t> target(rows, 1);
    target.fill_end(token(2));  // the other rows' is the first of equal classes
    const Far<float> loss(rows, 1);
    const Far<bfloat16> d_logits(rows, 16);
    const Both<double, 1> totals({3});
    for (const bool end : kEnds) {
      const CrossEntropyInput input{.logits = logits.rows(end), .target = target.flat(end)};
      cross_entropy_forward(input, loss.flat(end), context());
      cross_entropy_totals(input, loss.flat(end), totals.of(end), context());
    }
    loss.expect_same_end("loss", tolerance::kExact);
    const Doubles sums = values_of(totals.of(false)), sums_alone = values_of(totals.of(true));
    const auto others = static_cast<double>(rows - kSlice);
    const double loss_of_others = others * values_of(loss.flat(false).slice(0, 1))[0];
    EXPECT_NEAR(sums[0], sums_alone[0] + loss_of_others, 1e-12 * loss_of_others);
    EXPECT_EQ(sums[1], sums_alone[1] + others);
    EXPECT_EQ(sums[2], sums_alone[2] + others);
    for (const bool end : kEnds) {
      const CrossEntropyInput input{.logits = logits.rows(end), .target = target.flat(end)};
      cross_entropy_backward<bfloat16>(input, 1.0F, loss.flat(end), d_logits.rows(end), context());
    }
    d_logits.expect_same_end("d_logits", tolerance::kExact);
  });
}

LONGSTRAND_CUDA_TEST(FarOffsets, NextToken) {
  past_32_bits(1, [](std::int64_t rows) {
    Far<std::uint8_t> tokens(rows, 1);
    tokens.fill_end(token(1));
    const Both<std::int64_t, 1> valid = all_valid(rows);
    Both<std::int32_t, 1> next({1});
    next.fill([] { return 8.0; });
    const Far<std::int32_t> target(rows, 1);
    for (const bool end : kEnds) {
      next_token_targets(tokens.line(end), next.of(end), valid.of(end), {7, 10}, target.flat(end), context());
    }
    target.expect_same_end("target", tolerance::kExact);
  });
}

LONGSTRAND_CUDA_TEST(FarOffsets, Pooling) {
  constexpr std::int64_t kChannels = 64;
  past_32_bits(kChannels, [](std::int64_t rows) {
    Far<bfloat16> hidden(rows, kChannels);
    hidden.fill_end([random = Random(1)]() mutable { return random.uniform(1, 2); });
    const Both<std::int64_t, 1> valid = all_valid(rows);
    for (const Pooling mode : {Pooling::mean, Pooling::last, Pooling::max}) {
      SCOPED_TRACE(pooling_name(mode));
      const Both<double, 2> pooled({1, kChannels});
      for (const bool end : kEnds) {
        pooling_forward<bfloat16>(hidden.lane(end), valid.of(end), mode, pooled.of(end), context());
      }
      pooled.expect_same("pooled", tolerance::kExact);
    }
    Both<float, 2> d_pooled({1, kChannels});
    d_pooled.fill(normal(2));
    for (const bool end : kEnds) {
      pooling_backward<bfloat16>(d_pooled.of(end), valid.of(end), {}, Pooling::mean, hidden.lane(end),
                                 context());
    }
    hidden.expect_same_end("d_hidden", tolerance::kExact);
  });
}

LONGSTRAND_CUDA_TEST(FarOffsets, AdamW) {
  past_32_bits(1, [](std::int64_t count) {
    Far<float> weight(count, 1), gradient(count, 1);
    const Far<float> m(count, 1), v(count, 1);
    weight.fill_end(normal(1));
    gradient.fill_end(normal(2));
    const Doubles squares = {sum_of_squares(gradient.flat(false), context()),
                             sum_of_squares(gradient.flat(true), context())};
    EXPECT_NEAR(squares[0], squares[1], 1e-13 * squares[1]);
    for (const bool end : kEnds) {
      adamw_step(weight.flat(end), gradient.flat(end), m.flat(end), v.flat(end), {.learning_rate = 0.1},
                 context());
    }
    weight.expect_same_end("weight", tolerance::kExact);
    m.expect_same_end("m", tolerance::kExact);
    v.expect_same_end("v", tolerance::kExact);
  });
}

LONGSTRAND_CUDA_TEST(FarOffsets, RmsNorm) {
  constexpr std::int64_t kChannels = 64;
  constexpr float kEpsilon = 1e-5F;
  past_32_bits(kChannels, [](std::int64_t rows) {
    Far<float> residual(rows, kChannels);
    residual.fill_end(normal(1));
    Far<bfloat16> hidden(rows, kChannels);
    hidden.fill_end(normal(2));
    Both<float, 1> weight({kChannels});
    weight.fill(normal(3));
    const Far<bfloat16> out(rows, kChannels);
    for (const bool end : kEnds) {
      rms_norm_forward<bfloat16>(residual.rows(end), hidden.rows(end), weight.of(end), kEpsilon,
                                 {residual.rows(end), out.rows(end)}, context());
    }
    residual.expect_same_end("residual", tolerance::kExact);
    out.expect_same_end("out", tolerance::kExact);
    const Far<float> d_residual(rows, kChannels);
    const Both<float, 1> d_weight({kChannels});
    for (const bool end : kEnds) {  // hidden is now d_hidden
      rms_norm_backward<bfloat16>(residual.rows(end), weight.of(end), kEpsilon,
                                  {out.rows(end), d_residual.rows(end), hidden.rows(end), d_weight.of(end)},
                                  context());
    }
    d_residual.expect_same_end("d_residual", tolerance::kExact);
    hidden.expect_same_end("d_hidden", tolerance::kExact);
    d_weight.expect_same("d_weight", tolerance::kBackward);
  });
}

PackedLinear<bfloat16> normal_weight(std::int64_t out, std::int64_t in, std::uint64_t stream) {
  Both<float, 2> weight({out, in});
  weight.fill(normal(stream));
  PackedLinear<bfloat16> packed;
  packed.pack(weight.of(false), /*for_backward=*/true, context());
  return packed;
}

LONGSTRAND_CUDA_TEST(FarOffsets, Linear) {
  constexpr std::int64_t kChannels = 64;
  past_32_bits(kChannels, [](std::int64_t rows) {
    Far<bfloat16> x(rows, kChannels);
    x.fill_end(normal(1));
    const PackedLinear<bfloat16> packed = normal_weight(kChannels, kChannels, 2);
    const Far<bfloat16> y(rows, kChannels), d_x(rows, kChannels);
    const Both<float, 2> d_weight({kChannels, kChannels});
    for (const bool end : kEnds) {
      linear_forward<bfloat16, bfloat16>(x.rows(end), packed, y.rows(end), context());
      linear_backward_input<bfloat16>(y.rows(end), packed, d_x.rows(end), GradientMode::overwrite, context());
      linear_backward_weight<bfloat16>(y.rows(end), x.rows(end), d_weight.of(end), context());
    }
    y.expect_same_end("y", tolerance::kForwardBFloat16);
    d_x.expect_same_end("d_x", tolerance::kBackwardBFloat16);
    d_weight.expect_same("d_weight", tolerance::kBackwardBFloat16);
  });
}

LONGSTRAND_CUDA_TEST(FarOffsets, LinearSoftplus) {
  constexpr std::int64_t kChannels = 64, kInputs = 16;
  past_32_bits(kChannels, [](std::int64_t rows) {
    Far<bfloat16> x(rows, kChannels);
    x.fill_end(normal(1));
    const PackedLinear<bfloat16> packed = normal_weight(kChannels, kInputs, 2);
    Both<float, 1> bias({kChannels});
    bias.fill(normal(3));
    const Far<bfloat16> y(rows, kChannels);
    for (const bool end : kEnds) {
      linear_softplus_forward<bfloat16>(x.rows(end).columns(0, kInputs), packed, bias.of(end), y.rows(end),
                                        context());
    }
    y.expect_same_end("y", tolerance::kForwardBFloat16);
  });
}

/// Few rows alone are taken by other operations.
LONGSTRAND_CUDA_TEST(FarOffsets, Selection) {
  constexpr std::int64_t kChannels = 128, kRank = 16, kStates = 16;
  past_32_bits(kChannels, [](std::int64_t rows) {
    Far<bfloat16> u(rows, kChannels);
    u.fill_end(normal(1));
    const PackedLinear<bfloat16> x_proj = normal_weight(kRank + 2 * kStates, kChannels, 2);
    const PackedLinear<bfloat16> dt_proj = normal_weight(kChannels, kRank, 3);
    Both<float, 1> bias({kChannels});
    bias.fill(normal(4));
    const Both<float, 2> decay({kStates, kChannels});
    const Both<float, 3> state({1, kStates, kChannels});
    const Both<std::int64_t, 1> valid = all_valid(rows);
    const Array<float, 4> segment_states(
        {scan_segment_count(1, rows, kChannels, context()), 1, kStates, kChannels}, device_under_test());
    const Far<bfloat16> x_dbl(rows, kRank + 2 * kStates), dt(rows, kChannels);
    for (const Direction direction : kDirections) {
      SCOPED_TRACE(direction_name(direction));
      for (const bool end : kEnds) {
        selection_forward<bfloat16>({.u = u.lane(end),
                                     .x_proj = x_proj,
                                     .dt_proj = dt_proj,
                                     .dt_bias = bias.of(end),
                                     .decay = decay.of(end),
                                     .state = state.of(end),
                                     .valid = valid.of(end),
                                     .direction = direction},
                                    {.x_dbl = x_dbl.lane(end),
                                     .dt = dt.lane(end),
                                     .segment_states = end ? View<float, 4>{} : segment_states.view()},
                                    context());
      }
      x_dbl.expect_same_end("x_dbl", tolerance::kForwardBFloat16);
      dt.expect_same_end("dt", tolerance::kForwardBFloat16);
    }
  });
}

LONGSTRAND_CUDA_TEST(FarOffsets, LinearNorm) {
  constexpr std::int64_t kInputs = 64, kOutputs = 128;
  past_32_bits(kOutputs, [](std::int64_t rows) {
    Far<bfloat16> x(rows, kInputs);
    x.fill_end(normal(1));
    Far<float> residual(rows, kOutputs);
    residual.fill_end(normal(2));
    const PackedLinear<bfloat16> packed = normal_weight(kOutputs, kInputs, 3);
    Both<float, 1> norm_weight({kOutputs});
    norm_weight.fill(normal(4));
    const Far<bfloat16> normed(rows, kOutputs);
    for (const bool end : kEnds) {
      linear_norm_forward<bfloat16>(x.rows(end), packed,
                                    {.residual = residual.rows(end),
                                     .weight = norm_weight.of(end),
                                     .epsilon = 1e-5F,
                                     .normed = normed.rows(end)},
                                    context());
    }
    residual.expect_same_end("residual", tolerance::kForwardBFloat16);
    normed.expect_same_end("normed", tolerance::kForwardBFloat16);
  });
}

LONGSTRAND_CUDA_TEST(FarOffsets, LinearConv) {
  constexpr std::int64_t kChannels = 64, kTaps = 4;
  past_32_bits(kChannels, [](std::int64_t rows) {
    Far<bfloat16> input(rows, kChannels);
    input.fill_end(normal(1));
    const PackedLinear<bfloat16> packed = normal_weight(2 * kChannels, kChannels, 2);
    Both<float, 2> conv_weight({kChannels, kTaps});
    conv_weight.fill(normal(3));
    const Both<float, 1> bias({kChannels});
    const Both<float, 3> start({1, kTaps - 1, kChannels}), state({1, kTaps - 1, kChannels});
    const Both<std::int64_t, 1> valid = all_valid(rows);
    const Far<bfloat16> u(rows, kChannels), z(rows, kChannels);
    if (!linear_conv_forward<bfloat16>({.input = input.lane(false),
                                        .weight = packed,
                                        .conv_weight = conv_weight.of(false),
                                        .conv_bias = bias.of(false),
                                        .state = start.of(false),
                                        .valid = valid.of(false)},
                                       {u.lane(false), z.lane(false), state.of(false)}, context())) {
      GTEST_SKIP() << "no such kernel here";
    }
    const Array<bfloat16, 3> projected({1, kSlice, 2 * kChannels}, device_under_test());
    linear_forward<bfloat16, bfloat16>(input.rows(true), packed, longstrand::rows(projected.view()),
                                       context());
    copy(longstrand::rows(projected.view()).columns(kChannels, kChannels), z.rows(true), context());
    causal_conv_forward<bfloat16>({.x = projected.view().columns(0, kChannels),
                                   .weight = conv_weight.of(true),
                                   .bias = bias.of(true),
                                   .state = start.of(true),
                                   .valid = valid.of(true)},
                                  u.lane(true), state.of(true), context());
    u.expect_same_end("u", tolerance::kForwardBFloat16);
    z.expect_same_end("z", tolerance::kForwardBFloat16);
    state.expect_same("state", tolerance::kForwardBFloat16);
  });
}

/// The gradients are those of a loss that knows the last rows alone. In reverse these are walked first, and
/// the final state is that of the rows before them.
LONGSTRAND_CUDA_TEST(FarOffsets, CausalConv) {
  constexpr std::int64_t kChannels = 64, kTaps = 4;
  past_32_bits(kChannels, [](std::int64_t rows) {
    Far<bfloat16> x(rows, kChannels);
    x.fill_end(normal(1));
    Both<float, 2> weight({kChannels, kTaps});
    weight.fill(normal(2));
    const Both<float, 1> bias({kChannels});
    const Both<std::int64_t, 1> valid = all_valid(rows);
    const Far<bfloat16> out(rows, kChannels), d_x(rows, kChannels);
    for (const Direction direction : kDirections) {
      SCOPED_TRACE(direction_name(direction));
      const Both<float, 3> start({1, kTaps - 1, kChannels}), state({1, kTaps - 1, kChannels});
      const Both<float, 2> d_weight({kChannels, kTaps});
      const Both<float, 1> d_bias({kChannels});
      const Both<float, 3> d_state({1, kTaps - 1, kChannels});
      for (const bool end : kEnds) {
        const CausalConvInput<bfloat16> input{.x = x.lane(end),
                                              .weight = weight.of(end),
                                              .bias = bias.of(end),
                                              .state = start.of(end),
                                              .valid = valid.of(end),
                                              .direction = direction};
        causal_conv_forward<bfloat16>(input, out.lane(end), state.of(end), context());
        causal_conv_backward<bfloat16>(
            input, {x.lane(end), d_x.lane(end), d_weight.of(end), d_bias.of(end), d_state.of(end)},
            context());
      }
      out.expect_same_end("out", tolerance::kExact);
      const bool forward = direction == Direction::forward;
      forward ? state.expect_same("state", tolerance::kExact)
              : d_state.expect_same("d_state", tolerance::kExact);
      d_x.expect_same_end("d_x", tolerance::kExact);
      d_weight.expect_same("d_weight", tolerance::kBackward);
      d_bias.expect_same("d_bias", tolerance::kBackward);
    }
  });
}

/// As above.
LONGSTRAND_CUDA_TEST(FarOffsets, SelectiveScan) {
  constexpr std::int64_t kChannels = 64, kStates = 16;
  past_32_bits(kChannels, [](std::int64_t rows) {
    Far<bfloat16> u(rows, kChannels), dt(rows, kChannels), z(rows, kChannels);
    Far<bfloat16> b(rows, kStates), c(rows, kStates);
    u.fill_end(normal(1)), z.fill_end(normal(3));
    dt.fill_end([random = Random(2)]() mutable { return random.uniform(0.01, 2); });
    b.fill_end(normal(4)), c.fill_end(normal(5));
    Both<float, 2> decay({kStates, kChannels});
    decay.fill([random = Random(6)]() mutable { return random.uniform(-4, -1); });
    Both<float, 1> d({kChannels});
    d.fill(normal(7));
    const Both<std::int64_t, 1> valid = all_valid(rows);
    const Far<bfloat16> out(rows, kChannels), d_u(rows, kChannels), d_delta(rows, kChannels),
        d_z(rows, kChannels);
    const Far<bfloat16> d_b(rows, kStates), d_c(rows, kStates);
    for (const Direction direction : kDirections) {
      SCOPED_TRACE(direction_name(direction));
      const Both<float, 3> start({1, kStates, kChannels}), state({1, kStates, kChannels});
      const Both<float, 2> d_a_log({kChannels, kStates});
      const Both<float, 1> d_d({kChannels}), d_delta_bias({kChannels});
      const Both<float, 3> d_state({1, kStates, kChannels});
      for (const bool end : kEnds) {
        const Array<float, 4> checkpoints(
            {scan_checkpoint_count(end ? kSlice : rows, DeviceKind::cuda), 1,
             scan_checkpoint_rows<bfloat16>(kStates, DeviceKind::cuda), kChannels},
            device_under_test());
        const SelectiveScanInput<bfloat16> input{.u = u.lane(end),
                                                 .dt = dt.lane(end),
                                                 .b = b.lane(end),
                                                 .c = c.lane(end),
                                                 .z = z.lane(end),
                                                 .decay = decay.of(end),
                                                 .d = d.of(end),
                                                 .state = start.of(end),
                                                 .valid = valid.of(end),
                                                 .direction = direction};
        selective_scan_forward<bfloat16>(
            input, {.out = out.lane(end), .state = state.of(end), .checkpoints = checkpoints.view()},
            context());
        selective_scan_backward<bfloat16>(input,
                                          {.d_out = u.lane(end),
                                           .checkpoints = checkpoints.view(),
                                           .d_u = d_u.lane(end),
                                           .d_delta = d_delta.lane(end),
                                           .d_b = d_b.lane(end),
                                           .d_c = d_c.lane(end),
                                           .d_z = d_z.lane(end),
                                           .d_a_log = d_a_log.of(end),
                                           .d_d = d_d.of(end),
                                           .d_delta_bias = d_delta_bias.of(end),
                                           .d_state = d_state.of(end)},
                                          context());
        context().synchronize();
      }
      out.expect_same_end("out", tolerance::kForwardBFloat16);
      const bool forward = direction == Direction::forward;
      forward ? state.expect_same("state", tolerance::kForward)
              : d_state.expect_same("d_state", tolerance::kBackwardBFloat16);
      d_u.expect_same_end("d_u", tolerance::kBackwardBFloat16);
      d_delta.expect_same_end("d_delta", tolerance::kBackwardBFloat16);
      d_z.expect_same_end("d_z", tolerance::kBackwardBFloat16);
      d_b.expect_same_end("d_b", tolerance::kBackwardBFloat16);
      d_c.expect_same_end("d_c", tolerance::kBackwardBFloat16);
      d_a_log.expect_same("d_a_log", tolerance::kBackwardBFloat16);
      d_d.expect_same("d_d", tolerance::kBackwardBFloat16);
      d_delta_bias.expect_same("d_delta_bias", tolerance::kBackwardBFloat16);
    }
  });
}

LONGSTRAND_CUDA_TEST(FarOffsets, Elementwise) {
  past_32_bits(64, [](std::int64_t rows) {
    Far<bfloat16> a(rows, 64), b(rows, 64);
    a.fill_end(normal(1)), b.fill_end(normal(2));
    const Far<bfloat16> d_a(rows, 64), d_b(rows, 64);
    for (const bool end : kEnds) {
      add<bfloat16, bfloat16>(b.rows(end), a.rows(end), context());
      multiply_backward<bfloat16>(a.rows(end), b.rows(end), a.rows(end), d_a.rows(end), d_b.rows(end),
                                  context());
      multiply<bfloat16>(b.rows(end), a.rows(end), context());
    }
    a.expect_same_end("a", tolerance::kExact);
    d_a.expect_same_end("d_a", tolerance::kExact);
    d_b.expect_same_end("d_b", tolerance::kExact);
  });
}

/// Not for its offsets, but because it wants all memory for itself.
LONGSTRAND_CUDA_TEST(FarOffsets, WhatDoesNotFitGoesToTheHost) {
  constexpr std::size_t kBlock_bytes = std::size_t{8} << 30;
  std::vector<Buffer> taken;
  do {
    taken.emplace_back(kBlock_bytes, device_under_test(), Overflow::to_host);
  } while (!taken.back().overflowed());
  Arena arena(device_under_test(), Overflow::to_host);
  const Arena::Scope scope(arena);
  const std::int64_t size = kBlock_bytes / sizeof(float);
  const auto a = arena.take<float, 1>({size}), b = arena.take<float, 1>({1000});
  EXPECT_EQ(arena.overflow_bytes(), kBlock_bytes) << "the small one has room on the GPU";
  fill(a, 1.0F, context());
  fill(b, 2.0F, context());
  add(b, a.slice(size - 1000, 1000), context());
  EXPECT_EQ(values_of(a.slice(size - 1001, 1001)).front(), 1.0);
  EXPECT_EQ(values_of(a.slice(size - 1000, 1000)), Doubles(1000, 3.0));
}

/// The sum copies the last rows to the first ones of the other strand, and the exchange brings them back.
LONGSTRAND_CUDA_TEST(FarOffsets, Strands) {
  constexpr std::int64_t kChannels = 64;
  past_32_bits(kChannels, [](std::int64_t rows) {
    Far<float> far(rows, kChannels);
    far.fill_end(normal(1));
    const std::int64_t strand_rows = rows / 2;
    const View<float, 4> strands(far.rows(false).data, {1, 2, strand_rows, kChannels}, device_under_test());
    const Array<std::int64_t, 1> length({2}, device_under_test());
    fill(length.view(), strand_rows, context());
    add_facing_strands(strands, length.view(), {}, 1.0F, context());
    exchange_strands(strands, length.view(), context());
    Doubles expected = values_of(far.rows(true));
    for (auto row = expected.begin(); row != expected.end(); row += kChannels) {
      std::reverse(row, row + kChannels);
    }
    expect_near("rows", values_of(far.rows(false).slice(rows - kSlice, kSlice)), expected, tolerance::kExact);
  });
}

}  // namespace
}  // namespace longstrand
