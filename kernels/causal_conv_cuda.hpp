// The causal convolution on a GPU; operands as in causal_conv.hpp, already checked.
#pragma once

#include "kernels/causal_conv.hpp"

namespace longstrand::cuda {

template <class T>
void causal_conv_forward(const CausalConvInput<T>& input, View<T, 3> out, View<float, 3> state,
                         Context& context);

template <class T>
void causal_conv_backward(const CausalConvInput<T>& input, const CausalConvGradient<T>& gradient,
                          Context& context);

}  // namespace longstrand::cuda
