// The token embedding on a GPU; operands as in embedding.hpp, their shapes already checked.
#pragma once

#include "kernels/embedding.hpp"

namespace longstrand::cuda {

template <class T>
void embedding_forward(View<const std::uint8_t, 2> tokens, View<const T, 2> weight, View<T, 3> out,
                       Context& context);

void embedding_backward(View<const std::uint8_t, 2> tokens, View<const float, 3> d_out,
                        View<float, 2> d_weight, Context& context);

}  // namespace longstrand::cuda
