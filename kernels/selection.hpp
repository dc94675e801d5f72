// What makes the scan of Mamba-1 selective (Gu & Dao 2023, algorithm 2): its steps and its B and C, which
// depend on the token.
//
//   r, B, C = x_proj(u);   dt = softplus(dt_proj(r))
#pragma once

#include "kernels/context.hpp"
#include "kernels/direction.hpp"
#include "kernels/linear.hpp"
#include "kernels/view.hpp"

namespace longstrand {

template <class T>
struct SelectionInput {
  View<const T, 3> u;              // [B, T, D]  zero in padding
  const PackedLinear<T>& x_proj;   // [R + 2 N, D]
  const PackedLinear<T>& dt_proj;  // [D, R]
  View<const float, 1> dt_bias;    // [D]
  // Of the scan that follows, as SelectiveScanInput has them; for the states before its segments.
  View<const float, 2> decay;         // [N, D]
  View<const float, 3> state;         // [B, N, D]
  View<const std::int64_t, 1> valid;  // [B]
  Direction direction = Direction::forward;
};

template <class T>
struct SelectionOutput {
  View<T, 3> x_dbl;                    // [B, T, R + 2 N]  r, B and C
  View<T, 3> dt;                       // [B, T, D]
  View<float, 4> segment_states = {};  // [scan_segment_count, B, N, D]  optional, packed: for the scan's
};

/// All rows, those of padding as well. Returns whether the states before the scan's segments have been
/// written too: a Hopper GPU gives them on the way for bfloat16, 16 states, an R of at most 16 and 128, 256
/// or 512 channels.
template <class T>
bool selection_forward(const SelectionInput<T>& input, const SelectionOutput<T>& output, Context& context);

}  // namespace longstrand
