// The selective scan of Mamba-1 with its skip and gate (Gu & Dao 2023, algorithm 2), from the step sizes dt
// that linear_softplus_forward gives:
//
//   h_t  = exp(dt_t A) h_{t-1} + dt_t B_t u_t         per channel d and state n
//   y_t  = C_t . h_t + D u_t;   out_t = y_t silu(z_t)
//
// t counts the tokens as they are walked: from the first to the last or, in reverse, from the last valid one
// to the first. Tokens at and past valid[b] are padding: they leave the state as it is, their out and
// activation gradients are written as zero. Activations are T = float or bfloat16, everything else is float.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "kernels/context.hpp"
#include "kernels/direction.hpp"
#include "kernels/view.hpp"

namespace longstrand {

/// A checkpoint of the state is kept at every multiple of this many tokens of the walk through a chunk, for
/// backward: as many as suit the device.
constexpr std::int64_t scan_checkpoint_tokens(DeviceKind device) {
  return device == DeviceKind::cuda ? 8 : 32;
}
/// Of a chunk of so many tokens.
constexpr std::int64_t scan_checkpoint_count(std::int64_t tokens, DeviceKind device) {
  return (tokens + scan_checkpoint_tokens(device) - 1) / scan_checkpoint_tokens(device);
}

/// The rows of floats, one a channel, that a checkpoint of so many states has. A GPU's scan of bfloat16 keeps
/// states in 16 bits, in units of the channel's largest: right to 2^-15 of it.
template <class T>
constexpr std::int64_t scan_checkpoint_rows(std::int64_t states, DeviceKind device) {
  const bool packed = device == DeviceKind::cuda && std::is_same_v<T, bfloat16>;
  return packed ? (states + 1) / 2 + (states + 15) / 16 : states;
}

/// A GPU takes a long chunk in segments, side by side; the states before them cost a pass of their own. How
/// many segments a scan of that shape has; 0 where it goes without.
std::int64_t scan_segment_count(std::int64_t lanes, std::int64_t tokens, std::int64_t channels,
                                Context& context);

/// The order in which a GPU's scan is quickest with channels of which some forget sooner than others: which
/// of them to have in each place. `pace`: what decays a token, typically. Channels that go together are
/// alike, and every block of threads has some of each kind.
std::vector<std::int64_t> scan_channel_order(const std::vector<double>& pace);

template <class T>
struct SelectiveScanInput {
  View<const T, 3> u;                 // [B, T, D]
  View<const T, 3> dt;                // [B, T, D]  not negative
  View<const T, 3> b;                 // [B, T, N]
  View<const T, 3> c;                 // [B, T, N]
  View<const T, 3> z;                 // [B, T, D]
  View<const float, 2> decay;         // [N, D]     A log2(e); see prepare_decay
  View<const float, 1> d;             // [D]
  View<const float, 3> state;         // [B, N, D]  before the walk
  View<const std::int64_t, 1> valid;  // [B]
  Direction direction = Direction::forward;
  View<const float, 4> segment_states = {};  // [scan_segment_count, B, N, D]  optional, for forward: as a
                                             // scan of the same input gave them, to spare their pass
};

template <class T>
struct SelectiveScanOutput {
  View<T, 3> out;                      // [B, T, D]
  View<float, 3> state;                // [B, N, D]  after the walk; may be the input's state
  View<float, 4> checkpoints = {};     // [scan_checkpoint_count, B, scan_checkpoint_rows, D]  optional
  View<float, 4> segment_states = {};  // [scan_segment_count, B, N, D]  optional, packed; see the input's
  bool accumulate = false;             // adds to `out`, whose padding is left as it is
};

template <class T>
struct SelectiveScanGradient {
  View<const T, 3> d_out;            // [B, T, D]
  View<const float, 4> checkpoints;  // as forward wrote them
  View<T, 3> d_u;                    // [B, T, D]  overwritten, as the four below
  View<T, 3> d_delta;                // [B, T, D]  of delta, where dt = softplus(delta)
  View<T, 3> d_b;                    // [B, T, N]
  View<T, 3> d_c;                    // [B, T, N]
  View<T, 3> d_z;                    // [B, T, D]
  View<float, 2> d_a_log;            // [D, N]     accumulated, as the two below
  View<float, 1> d_d;                // [D]
  View<float, 1> d_delta_bias;       // [D]        sums of d_delta
  View<float, 3> d_state;            // [B, N, D]  in: gradient of the final state; out: of the initial state
};

/// decay[n, d] = -exp(a_log[d, n]) log2(e): the form in which the scan takes A.
void prepare_decay(View<const float, 2> a_log, View<float, 2> decay, Context& context);

template <class T>
void selective_scan_forward(const SelectiveScanInput<T>& input, const SelectiveScanOutput<T>& output,
                            Context& context);

/// `input` as given to forward, its state included.
template <class T>
void selective_scan_backward(const SelectiveScanInput<T>& input, const SelectiveScanGradient<T>& gradient,
                             Context& context);

}  // namespace longstrand
