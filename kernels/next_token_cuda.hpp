// Next tokens on a GPU; operands as in next_token.hpp, their shapes already checked.
#pragma once

#include "kernels/next_token.hpp"

namespace longstrand::cuda {

void next_token_targets(View<const std::uint8_t, 2> tokens, View<const std::int32_t, 1> next,
                        View<const std::int64_t, 1> valid, TokenRange predicted, View<std::int32_t, 1> target,
                        Context& context);

}  // namespace longstrand::cuda
