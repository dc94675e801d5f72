// The token embedding on the CPU; operands as in embedding.hpp, already checked.
#pragma once

#include "kernels/embedding.hpp"

namespace longstrand::cpu {

void embedding_backward(View<const std::uint8_t, 2> tokens, View<const float, 3> d_out,
                        View<float, 2> d_weight);

}  // namespace longstrand::cpu
