// AdamW on the CPU; operands as in adamw.hpp, already checked.
#pragma once

#include "kernels/adamw.hpp"

namespace longstrand::cpu {

void adamw_step(View<float, 1> weight, View<const float, 1> gradient, View<float, 1> m, View<float, 1> v,
                const AdamWOptions& options);

double sum_of_squares(View<const float, 1> values);

}  // namespace longstrand::cpu
