// The causal convolution on the CPU; operands as in causal_conv.hpp, already checked.
#pragma once

#include "kernels/causal_conv.hpp"

namespace longstrand::cpu {

template <class T>
void causal_conv_forward(const CausalConvInput<T>& input, View<T, 3> out, View<float, 3> state);

template <class T>
void causal_conv_backward(const CausalConvInput<T>& input, const CausalConvGradient<T>& gradient);

}  // namespace longstrand::cpu
