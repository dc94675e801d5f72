// A selective scan with all its operands, for the tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/selective_scan.hpp"
#include "tests/support/directions.hpp"
#include "tests/support/guarded.hpp"
#include "tests/support/random.hpp"
#include "tests/support/reference_scan.hpp"

namespace longstrand {

struct ScanCase {
  std::int64_t lanes, tokens, channels, states;  // B, T, D, N
  std::vector<std::int64_t> valid;               // by lane; empty: all tokens of all lanes
  std::int64_t gap;                              // elements between rows
  const char* reason;
};

inline std::vector<std::int64_t> valid_of(const ScanCase& c) {
  return c.valid.empty() ? std::vector<std::int64_t>(c.lanes, c.tokens) : c.valid;
}

/// Tokens [begin, begin + count) of x [B, T, D].
template <class T>
View<T, 3> tokens_of(View<T, 3> x, std::int64_t begin, std::int64_t count) {
  x.data += begin * x.stride[1];
  x.shape[1] = count;
  return x;
}

inline std::int64_t checkpoints_of(std::int64_t tokens) {
  return scan_checkpoint_count(tokens, device_under_test().kind);
}

/// Of a scan of T.
template <class T>
std::int64_t checkpoint_rows_of(std::int64_t states) {
  return scan_checkpoint_rows<T>(states, device_under_test().kind);
}

/// Of `valid` tokens by lane, how many lie in [begin, begin + count), counted from `begin`.
inline std::vector<double> valid_within(std::vector<double> valid, std::int64_t begin, std::int64_t count) {
  for (double& tokens : valid) {
    tokens = std::clamp(tokens - static_cast<double>(begin), 0.0, static_cast<double>(count));
  }
  return valid;
}

/// Operands and results of one scan. Padding rows of the operands are NaN: they must not be used.
template <class T>
struct Scan {
  std::int64_t lanes, tokens, channels, states;
  Direction direction;
  Guarded<T, 3> u, dt, z, b, c;
  Guarded<float, 2> a_log, decay;
  Guarded<float, 1> d;
  Guarded<float, 3> initial;
  Guarded<std::int64_t, 1> valid;
  Guarded<T, 3> out;
  Guarded<float, 3> state;
  Guarded<float, 4> checkpoints;
  Guarded<T, 3> d_out, d_u, d_delta, d_z, d_b, d_c;
  Guarded<float, 2> d_a_log;
  Guarded<float, 1> d_d, d_delta_bias;
  Guarded<float, 3> d_state;
  Context context{device_under_test()};

  explicit Scan(const ScanCase& c_, Direction walk = Direction::forward)
      : lanes(c_.lanes),
        tokens(c_.tokens),
        channels(c_.channels),
        states(c_.states),
        direction(walk),
        u({lanes, tokens, channels}, c_.gap),
        dt({lanes, tokens, channels}, c_.gap),
        z({lanes, tokens, channels}, c_.gap),
        b({lanes, tokens, states}, c_.gap),
        c({lanes, tokens, states}, c_.gap),
        a_log({channels, states}, c_.gap),
        decay({states, channels}, c_.gap),
        d({channels}),
        initial({lanes, states, channels}, c_.gap),
        valid({lanes}),
        out({lanes, tokens, channels}, c_.gap),
        state({lanes, states, channels}, c_.gap),
        checkpoints({checkpoints_of(tokens), lanes, checkpoint_rows_of<T>(states), channels}, c_.gap),
        d_out({lanes, tokens, channels}, c_.gap),
        d_u({lanes, tokens, channels}, c_.gap),
        d_delta({lanes, tokens, channels}, c_.gap),
        d_z({lanes, tokens, channels}, c_.gap),
        d_b({lanes, tokens, states}, c_.gap),
        d_c({lanes, tokens, states}, c_.gap),
        d_a_log({channels, states}, c_.gap),
        d_d({channels}),
        d_delta_bias({channels}),
        d_state({lanes, states, channels}, c_.gap) {
    Random random(1);
    const auto normal = [&] { return random.normal(); };
    for (Guarded<T, 3>* x : {&u, &z, &b, &c, &d_out}) x->fill(normal);
    dt.fill([&] { return reference::softplus(random.uniform(-4, 0) + random.normal()); });
    a_log.fill([&] { return std::log(random.uniform(0.5, 17)); });
    d.fill(normal);
    initial.fill(normal);
    d_state.fill(normal);
    for (Guarded<float, 1>* x : {&d_d, &d_delta_bias}) x->fill(normal);
    d_a_log.fill(normal);
    const auto counts = valid_of(c_);
    valid.assign({counts.begin(), counts.end()});
    for (Guarded<T, 3>* x : {&u, &dt, &z, &b, &c, &d_out}) poison_padding(*x);
    prepare_decay(a_log, decay, context);
  }

  void poison_padding(Guarded<T, 3>& x) {
    const reference::Doubles counts = valid.values();
    const View<T, 3> rows = x.host();
    for (std::int64_t lane = 0; lane < lanes; ++lane) {
      for (auto t = static_cast<std::int64_t>(counts[lane]); t < tokens; ++t) {
        std::fill_n(rows.at(lane, t), rows.shape[2],
                    from_double<T>(std::numeric_limits<double>::quiet_NaN()));
      }
    }
  }

  reference::ScanOperands operands() const {
    const reference::Doubles counts = valid.values();
    return {{lanes, tokens, channels, states},
            u.values(),
            dt.values(),
            z.values(),
            b.values(),
            c.values(),
            a_log.values(),
            d.values(),
            initial.values(),
            {counts.begin(), counts.end()},
            direction};
  }

  /// The operands of tokens [begin, begin + count), with at most as many of them valid.
  SelectiveScanInput<T> input(std::int64_t begin, std::int64_t count, View<const float, 3> start,
                              View<const std::int64_t, 1> valid_here) {
    return {.u = tokens_of<T>(u, begin, count),
            .dt = tokens_of<T>(dt, begin, count),
            .b = tokens_of<T>(b, begin, count),
            .c = tokens_of<T>(c, begin, count),
            .z = tokens_of<T>(z, begin, count),
            .decay = decay,
            .d = d,
            .state = start,
            .valid = valid_here,
            .direction = direction};
  }
  SelectiveScanInput<T> whole_input() { return input(0, tokens, initial, valid); }

  SelectiveScanGradient<T> gradient(std::int64_t begin, std::int64_t count,
                                    View<const float, 4> checkpoints_here) {
    return {.d_out = tokens_of<T>(d_out, begin, count),
            .checkpoints = checkpoints_here,
            .d_u = tokens_of<T>(d_u, begin, count),
            .d_delta = tokens_of<T>(d_delta, begin, count),
            .d_b = tokens_of<T>(d_b, begin, count),
            .d_c = tokens_of<T>(d_c, begin, count),
            .d_z = tokens_of<T>(d_z, begin, count),
            .d_a_log = d_a_log,
            .d_d = d_d,
            .d_delta_bias = d_delta_bias,
            .d_state = d_state};
  }

  void run_forward() {
    selective_scan_forward<T>(whole_input(), {.out = out, .state = state, .checkpoints = checkpoints},
                              context);
  }
  void run_backward() {
    selective_scan_backward<T>(whole_input(), gradient(0, tokens, checkpoints), context);
  }

  /// Both passes in chunks of `size` tokens: the state handed on in place, and its gradient back.
  void run_in_chunks(std::int64_t size) {
    struct Chunk {
      std::int64_t begin, count;
      Guarded<std::int64_t, 1> valid;
      Guarded<float, 4> checkpoints;
    };
    std::vector<std::unique_ptr<Chunk>> chunks;
    const reference::Doubles counts = valid.values();
    state.assign(initial.values());
    for (const std::int64_t begin : chunk_begins(tokens, size, direction)) {
      const std::int64_t count = std::min(size, tokens - begin);
      chunks.emplace_back(new Chunk{
          begin, count, Guarded<std::int64_t, 1>({lanes}),
          Guarded<float, 4>({checkpoints_of(count), lanes, checkpoint_rows_of<T>(states), channels})});
      Chunk& chunk = *chunks.back();
      chunk.valid.assign(valid_within(counts, begin, count));
      selective_scan_forward<T>(
          input(begin, count, state, chunk.valid),
          {.out = tokens_of<T>(out, begin, count), .state = state, .checkpoints = chunk.checkpoints},
          context);
    }
    for (; !chunks.empty(); chunks.pop_back()) {
      Chunk& chunk = *chunks.back();
      selective_scan_backward<T>(input(chunk.begin, chunk.count, initial, chunk.valid),
                                 gradient(chunk.begin, chunk.count, chunk.checkpoints), context);
    }
  }

  struct Gradients {
    reference::Doubles u, delta, z, b, c, a_log, d, delta_bias, state;
  };
  Gradients gradients() const {
    return {d_u.values(),     d_delta.values(), d_z.values(),          d_b.values(),    d_c.values(),
            d_a_log.values(), d_d.values(),     d_delta_bias.values(), d_state.values()};
  }
};

}  // namespace longstrand
