// Selection on a GPU; operands as in selection.hpp, already checked.
#pragma once

#include "kernels/selection.hpp"

namespace longstrand::cuda {

/// In one kernel. Returns false, with nothing done, where there is none for such operands.
bool selection_forward(const SelectionInput<bfloat16>& input, View<const bfloat16, 2> x_proj,
                       View<const bfloat16, 2> dt_proj, const SelectionOutput<bfloat16>& output,
                       Context& context);

}  // namespace longstrand::cuda
