// The selective scan on a GPU; see selective_scan.hpp.
#pragma once

#include "kernels/selective_scan.hpp"

namespace longstrand::cuda {

void prepare_decay(View<const float, 2> a_log, View<float, 2> decay, Context& context);
std::int64_t scan_segment_count(std::int64_t lanes, std::int64_t tokens, std::int64_t channels,
                                Context& context);
template <class T>
void selective_scan_forward(const SelectiveScanInput<T>& input, const SelectiveScanOutput<T>& output,
                            Context& context);
template <class T>
void selective_scan_backward(const SelectiveScanInput<T>& input, const SelectiveScanGradient<T>& gradient,
                             Context& context);

}  // namespace longstrand::cuda
