// Projection and convolution in one on a GPU; operands as in linear_conv.hpp, already checked.
#pragma once

#include "kernels/context.hpp"
#include "kernels/linear_conv.hpp"

namespace longstrand::cuda {

/// `weight` is input.weight's.
bool linear_conv_forward(const LinearConvInput<bfloat16>& input, View<const bfloat16, 2> weight,
                         const LinearConvOutput<bfloat16>& output, Context& context);

}  // namespace longstrand::cuda
