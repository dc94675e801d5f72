// kernels/strands.hpp on a GPU; operands already checked.
#pragma once

#include "kernels/context.hpp"
#include "kernels/view.hpp"

namespace longstrand::cuda {

void exchange_strands(View<float, 4> rows, View<const std::int64_t, 1> length, Context& context);
void add_facing_strands(View<float, 4> rows, View<const std::int64_t, 1> length,
                        View<const std::int32_t, 1> facing, float scale, Context& context);

}  // namespace longstrand::cuda
