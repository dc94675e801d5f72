// softplus on the CPU; operands are already checked.
#pragma once

#include "kernels/view.hpp"

namespace longstrand::cpu {

/// y [M, D] = softplus(x + bias), rounded to T. bias [D].
template <class T>
void add_bias_softplus(View<const float, 2> x, View<const float, 1> bias, View<T, 2> y);

}  // namespace longstrand::cpu
