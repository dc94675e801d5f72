// The steps, B and C of a scan against the float64 references of what they are made of, and a scan that
// starts from the states before its segments that came with them.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/selection.hpp"
#include "kernels/selective_scan.hpp"
#include "tests/support/directions.hpp"
#include "tests/support/each_target.hpp"
#include "tests/support/guarded.hpp"
#include "tests/support/random.hpp"
#include "tests/support/reference_linear.hpp"
#include "tests/support/reference_scan.hpp"
#include "tests/support/tolerances.hpp"

namespace longstrand {
namespace {

using reference::Doubles;

struct Case {
  std::int64_t lanes, tokens, channels, rank, states;
  std::vector<std::int64_t> valid;  // of lanes; those after them are whole
  std::int64_t gap;                 // elements between rows
  const char* reason;

  std::int64_t width() const { return rank + 2 * states; }
};

/// As many lanes, those after `valid` of a few tokens: they cost the references little.
std::vector<std::int64_t> and_short_ones(std::vector<std::int64_t> valid, std::size_t lanes) {
  valid.resize(lanes, 5);
  return valid;
}

// A GPU's kernel walks segments in tiles of 64 tokens; how long segments are depends on lanes and channels.
const std::vector<Case> kCases = {
    {1, 3, 5, 1, 2, {}, 0, "small and odd"},
    {1, 70, 40, 3, 7, {33}, 5, "no kernel for such channels; rows apart"},
    {3, 70, 40, 3, 7, {70, 0, 33}, 0, "no kernel for such channels"},
    {1, 4100, 128, 4, 16, {}, 8, "segments of one tile; rows apart"},
    {2, 2100, 256, 8, 16, {2099, 1201}, 0, "lanes that end within a tile"},
    {45, 150, 512, 16, 16,
     and_short_ones({150, 0, 1, 15, 16, 17, 63, 64, 65, 79, 80, 81, 96, 127, 128, 129, 149}, 45), 0,
     "two tiles a segment, the second one cut; lanes that end around their edges"},
    {300, 66, 128, 6, 16, and_short_ones({66, 3, 0, 64, 65}, 300), 0, "no segments"},
};

/// Padding rows of u are zero, as the convolution leaves them.
template <class T>
class Selection {
 public:
  explicit Selection(const Case& c)
      : case_(c),
        u_({c.lanes, c.tokens, c.channels}, c.gap),
        x_dbl_({c.lanes, c.tokens, c.width()}, c.gap),
        dt_({c.lanes, c.tokens, c.channels}, c.gap),
        z_({c.lanes, c.tokens, c.channels}),
        out_({c.lanes, c.tokens, c.channels}),
        x_proj_({c.width(), c.channels}),
        dt_proj_({c.channels, c.rank}),
        a_log_({c.channels, c.states}),
        decay_({c.states, c.channels}),
        dt_bias_({c.channels}),
        d_({c.channels}),
        state_({c.lanes, c.states, c.channels}),
        valid_({c.lanes}) {
    Random random(11);
    case_.valid.resize(static_cast<std::size_t>(c.lanes), c.tokens);
    const auto rounded = [&](double spread) {
      return [&random, spread] { return to_double(from_double<T>(random.normal(0, spread))); };
    };
    u_.fill(rounded(1));
    z_.fill(rounded(1));
    x_proj_.fill(rounded(1 / std::sqrt(static_cast<double>(c.channels))));
    dt_proj_.fill(rounded(1 / std::sqrt(static_cast<double>(c.rank))));
    dt_bias_.fill([&] { return random.uniform(-9, 0); });
    a_log_.fill([&] { return std::log(random.uniform(0.5, 17)); });
    d_.fill([&] { return random.normal(); });
    state_.fill([&] { return random.normal(); });
    valid_.assign({case_.valid.begin(), case_.valid.end()});
    const View<T, 3> rows = u_.host();
    for (std::int64_t lane = 0; lane < c.lanes; ++lane) {
      for (std::int64_t t = case_.valid[static_cast<std::size_t>(lane)]; t < c.tokens; ++t) {
        std::fill_n(rows.at(lane, t), c.channels, from_double<T>(0));
      }
    }
    prepare_decay(a_log_, decay_, context_);
    packed_x_.pack(x_proj_, false, context_);
    packed_dt_.pack(dt_proj_, false, context_);
  }

  std::int64_t segments() { return scan_segment_count(case_.lanes, case_.tokens, case_.channels, context_); }

  /// Returns whether the states have been written.
  bool run(Direction direction, View<float, 4> segment_states) {
    return selection_forward<T>({.u = u_,
                                 .x_proj = packed_x_,
                                 .dt_proj = packed_dt_,
                                 .dt_bias = dt_bias_,
                                 .decay = decay_,
                                 .state = state_,
                                 .valid = valid_,
                                 .direction = direction},
                                {.x_dbl = x_dbl_, .dt = dt_, .segment_states = segment_states}, context_);
  }

  void expect_selected() {
    const std::int64_t rows = case_.lanes * case_.tokens;
    const Doubles x_dbl =
        reference::linear({rows, case_.channels, case_.width()}, u_.values(), x_proj_.values());
    expect_near("x_dbl", x_dbl_.values(), x_dbl, forward_tolerance<T>());
    Doubles dt =
        reference::linear({rows, case_.rank, case_.channels}, of_row(0, case_.rank), dt_proj_.values());
    const Doubles bias = dt_bias_.values();
    for (std::size_t i = 0; i < dt.size(); ++i) dt[i] = reference::softplus(dt[i] + bias[i % bias.size()]);
    expect_near("dt", dt_.values(), dt, forward_tolerance<T>());
  }

  /// A scan with what has been selected.
  void expect_scanned(Direction direction, View<const float, 4> segment_states) {
    const reference::ScanOperands operands{{case_.lanes, case_.tokens, case_.channels, case_.states},
                                           u_.values(),
                                           dt_.values(),
                                           z_.values(),
                                           of_row(case_.rank, case_.states),
                                           of_row(case_.rank + case_.states, case_.states),
                                           a_log_.values(),
                                           d_.values(),
                                           state_.values(),
                                           case_.valid,
                                           direction};
    const auto expected = reference::selective_scan(operands);
    const View<T, 3> x_dbl = x_dbl_;
    Guarded<float, 3> state(state_.shape());
    selective_scan_forward<T>({.u = u_,
                               .dt = dt_,
                               .b = x_dbl.columns(case_.rank, case_.states),
                               .c = x_dbl.columns(case_.rank + case_.states, case_.states),
                               .z = z_,
                               .decay = decay_,
                               .d = d_,
                               .state = state_,
                               .valid = valid_,
                               .direction = direction,
                               .segment_states = segment_states},
                              {.out = out_, .state = state}, context_);
    expect_near("out", out_.values(), expected.out, forward_tolerance<T>());
    expect_near("state", state.values(), expected.state, state_tolerance<T>());
  }

  Doubles steps() const { return dt_.values(); }

 private:
  /// Columns of x_dbl.
  Doubles of_row(std::int64_t begin, std::int64_t count) const {
    const Doubles all = x_dbl_.values();
    Doubles columns;
    for (std::int64_t row = 0; row < case_.lanes * case_.tokens; ++row) {
      const auto from = all.begin() + row * case_.width() + begin;
      columns.insert(columns.end(), from, from + count);
    }
    return columns;
  }

  Case case_;
  Context context_{device_under_test()};
  Guarded<T, 3> u_, x_dbl_, dt_, z_, out_;
  Guarded<float, 2> x_proj_, dt_proj_, a_log_, decay_;
  Guarded<float, 1> dt_bias_, d_;
  Guarded<float, 3> state_;
  Guarded<std::int64_t, 1> valid_;
  PackedLinear<T> packed_x_, packed_dt_;
};

template <class T>
void expect_reference(const Case& c, Direction direction) {
  SCOPED_TRACE(direction_name(direction));
  Selection<T> selection(c);
  const std::int64_t segments = selection.segments();
  Guarded<float, 4> states({segments, c.lanes, c.states, c.channels});
  const View<float, 4> segment_states = segments > 0 ? states.view() : View<float, 4>{};
  const bool has_states = selection.run(direction, segment_states);
  const bool fits = std::is_same_v<T, bfloat16> && c.channels % 128 == 0;
  EXPECT_EQ(has_states, fits && segments > 0 && takes_hopper_kernels());
  selection.expect_selected();
  selection.expect_scanned(direction, has_states ? segment_states : View<float, 4>{});
  if (!has_states) return;
  Selection<T> without(c);
  EXPECT_FALSE(without.run(direction, {}));
  EXPECT_EQ(without.steps(), selection.steps());
}

LONGSTRAND_DEVICE_TEST(Selection, AgreesWithTheReference) {
  for (const Case& each : kCases) {
    SCOPED_TRACE(each.reason);
    for (const Direction direction : kDirections) {
      if (each.lanes * each.tokens < 1000) expect_reference<float>(each, direction);
      expect_reference<bfloat16>(each, direction);
    }
  }
}

/// No result depends on which of a GPU's warps was first.
LONGSTRAND_CUDA_TEST(Selection, GivesTheSameAgain) {
  const Case c{40, 300, 512, 16, 16, {300, 17}, 0, ""};
  for (const Direction direction : kDirections) {
    SCOPED_TRACE(direction_name(direction));
    Selection<bfloat16> selection(c);
    Guarded<float, 4> states({selection.segments(), c.lanes, c.states, c.channels});
    if (!selection.run(direction, states)) return;
    const Doubles first = states.values(), steps = selection.steps();
    for (int time = 0; time < 5; ++time) {
      ASSERT_TRUE(selection.run(direction, states));
      EXPECT_EQ(states.values(), first);
      EXPECT_EQ(selection.steps(), steps);
    }
  }
}

LONGSTRAND_DEVICE_TEST(Selection, RefusesOperandsThatDoNotFit) {
  Context context{device_under_test()};
  Guarded<float, 3> u({1, 5, 8}), dt({1, 5, 8}), x_dbl({1, 5, 6}), narrow({1, 5, 5});
  Guarded<float, 2> x_proj({6, 8}), dt_proj({8, 2}), decay({2, 8});
  Guarded<float, 1> bias({8}), short_bias({7});
  Guarded<float, 3> state({1, 2, 8});
  Guarded<std::int64_t, 1> valid({1});
  for (Guarded<float, 2>* operand : {&x_proj, &dt_proj, &decay}) operand->fill([] { return 1.0; });
  valid.fill([] { return 5.0; });
  PackedLinear<float> packed_x, packed_dt;
  packed_x.pack(x_proj, false, context);
  packed_dt.pack(dt_proj, false, context);
  const auto forward = [&](View<const float, 1> dt_bias, View<float, 3> to) {
    selection_forward<float>({.u = u,
                              .x_proj = packed_x,
                              .dt_proj = packed_dt,
                              .dt_bias = dt_bias,
                              .decay = decay,
                              .state = state,
                              .valid = valid},
                             {.x_dbl = to, .dt = dt}, context);
  };
  EXPECT_THROW(forward(short_bias, x_dbl), std::logic_error);
  EXPECT_THROW(forward(bias, narrow), std::logic_error);
}

}  // namespace
}  // namespace longstrand
