// Token embedding: out[b, t] = weight[tokens[b, t]].
#pragma once

#include "kernels/context.hpp"
#include "kernels/view.hpp"

namespace longstrand {

/// tokens [B, T], each below V; weight [V, D]; out [B, T, D], of float or bfloat16. A token that is not:
/// std::logic_error on the CPU; a GPU's tokens are not looked at beforehand, and such a token's row becomes
/// NaN.
template <class T>
void embedding_forward(View<const std::uint8_t, 2> tokens, View<const T, 2> weight, View<T, 3> out,
                       Context& context);

/// d_weight [V, D] accumulated from d_out [B, T, D]. A token not below V: as above, but on a GPU without a
/// gradient.
void embedding_backward(View<const std::uint8_t, 2> tokens, View<const float, 3> d_out,
                        View<float, 2> d_weight, Context& context);

}  // namespace longstrand
