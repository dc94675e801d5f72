// The selective scan of kernels/selective_scan.hpp in double, as the formulas read. Arrays are packed, in the
// shapes that are written beside them.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/direction.hpp"
#include "tests/support/reference_math.hpp"

namespace longstrand::reference {

struct ScanSizes {
  std::int64_t lanes, tokens, channels, states;  // B, T, D, N
};

struct ScanOperands {
  ScanSizes size;
  Doubles u, dt, z;                 // [B, T, D]
  Doubles b, c;                     // [B, T, N]
  Doubles a_log;                    // [D, N]
  Doubles d;                        // [D]
  Doubles state;                    // [B, N, D]
  std::vector<std::int64_t> valid;  // [B]
  Direction direction;
};

struct ScanResults {
  Doubles out;    // [B, T, D]
  Doubles state;  // [B, N, D]
};

/// Gradients of the operands, that of `state` by the initial one. In place of dt's: that of delta [B, T, D],
/// where dt = softplus(delta), and that of a bias [D] which is part of delta.
struct ScanGradients {
  Doubles u, delta, z, b, c, a_log, d, delta_bias, state;
};

/// One channel of one lane: what the loop over its tokens needs. Token t is the one walked after t others.
struct ScanChannel {
  const ScanOperands& op;
  std::int64_t lane, channel;

  std::int64_t token(std::int64_t t) const {
    return lane * op.size.tokens + (op.direction == Direction::reverse ? op.valid[lane] - 1 - t : t);
  }
  std::int64_t row(std::int64_t t) const { return token(t) * op.size.channels + channel; }
  std::int64_t shared(std::int64_t t, std::int64_t n) const { return token(t) * op.size.states + n; }
  std::int64_t state(std::int64_t n) const {
    return (lane * op.size.states + n) * op.size.channels + channel;
  }
  double a(std::int64_t n) const { return -std::exp(op.a_log[channel * op.size.states + n]); }
  double dt(std::int64_t t) const { return op.dt[row(t)]; }
};

inline void scan_channel(const ScanChannel& at, ScanResults& result) {
  const ScanOperands& op = at.op;
  for (std::int64_t t = 0; t < op.valid[at.lane]; ++t) {
    const double u = op.u[at.row(t)];
    double y = op.d[at.channel] * u;
    for (std::int64_t n = 0; n < op.size.states; ++n) {
      double& h = result.state[at.state(n)];
      h = std::exp(at.dt(t) * at.a(n)) * h + at.dt(t) * op.b[at.shared(t, n)] * u;
      y += op.c[at.shared(t, n)] * h;
    }
    result.out[at.row(t)] = y * silu(op.z[at.row(t)]);
  }
}

inline ScanResults selective_scan(const ScanOperands& op) {
  ScanResults result{Doubles(op.u.size(), 0.0), op.state};
  for (std::int64_t lane = 0; lane < op.size.lanes; ++lane) {
    for (std::int64_t channel = 0; channel < op.size.channels; ++channel) {
      scan_channel({op, lane, channel}, result);
    }
  }
  return result;
}

/// Adds one channel's part of all gradients.
inline void scan_channel_backward(const ScanChannel& at, const Doubles& d_out, ScanGradients& grad) {
  const ScanOperands& op = at.op;
  const std::int64_t count = op.valid[at.lane];
  const std::int64_t states = op.size.states;
  Doubles y(count);
  Doubles h((count + 1) * states);  // h[t + 1] is the state after token t
  for (std::int64_t n = 0; n < states; ++n) h[n] = op.state[at.state(n)];
  for (std::int64_t t = 0; t < count; ++t) {
    y[t] = op.d[at.channel] * op.u[at.row(t)];
    for (std::int64_t n = 0; n < states; ++n) {
      h[(t + 1) * states + n] = std::exp(at.dt(t) * at.a(n)) * h[t * states + n] +
                                at.dt(t) * op.b[at.shared(t, n)] * op.u[at.row(t)];
      y[t] += op.c[at.shared(t, n)] * h[(t + 1) * states + n];
    }
  }
  for (std::int64_t t = count - 1; t >= 0; --t) {
    const double u = op.u[at.row(t)], z = op.z[at.row(t)], dt = at.dt(t);
    const double d_y = d_out[at.row(t)] * silu(z);
    double d_dt = 0;
    grad.z[at.row(t)] = d_out[at.row(t)] * y[t] * silu_slope(z);
    grad.d[at.channel] += d_y * u;
    grad.u[at.row(t)] = d_y * op.d[at.channel];
    for (std::int64_t n = 0; n < states; ++n) {
      const double b = op.b[at.shared(t, n)], before = h[t * states + n], a = at.a(n);
      double& d_h = grad.state[at.state(n)];
      d_h += d_y * op.c[at.shared(t, n)];
      grad.c[at.shared(t, n)] += d_y * h[(t + 1) * states + n];
      grad.b[at.shared(t, n)] += d_h * dt * u;
      grad.u[at.row(t)] += d_h * dt * b;
      d_dt += d_h * (before * std::exp(dt * a) * a + b * u);
      grad.a_log[at.channel * states + n] += d_h * before * std::exp(dt * a) * dt * a;
      d_h *= std::exp(dt * a);
    }
    grad.delta[at.row(t)] = d_dt * -std::expm1(-dt);
    grad.delta_bias[at.channel] += grad.delta[at.row(t)];
  }
}

/// Of the loss whose gradients by out and by the final state are d_out [B, T, D] and d_state [B, N, D].
inline ScanGradients selective_scan_backward(const ScanOperands& op, const Doubles& d_out,
                                             const Doubles& d_state) {
  const auto zeros = [](const Doubles& like) { return Doubles(like.size(), 0.0); };
  ScanGradients grad{zeros(op.u),     zeros(op.dt), zeros(op.z), zeros(op.b), zeros(op.c),
                     zeros(op.a_log), zeros(op.d),  zeros(op.d), d_state};
  for (std::int64_t lane = 0; lane < op.size.lanes; ++lane) {
    for (std::int64_t channel = 0; channel < op.size.channels; ++channel) {
      scan_channel_backward({op, lane, channel}, d_out, grad);
    }
  }
  return grad;
}

}  // namespace longstrand::reference
