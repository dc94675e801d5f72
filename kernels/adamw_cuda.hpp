// AdamW on a GPU; operands as in adamw.hpp, already checked.
#pragma once

#include "kernels/adamw.hpp"

namespace longstrand::cuda {

void adamw_step(View<float, 1> weight, View<const float, 1> gradient, View<float, 1> m, View<float, 1> v,
                const AdamWOptions& options, Context& context);

double sum_of_squares(View<const float, 1> values, Context& context);

}  // namespace longstrand::cuda
