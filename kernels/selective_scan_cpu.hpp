// The selective scan on the CPU; operands as in selective_scan.hpp, already checked.
#pragma once

#include "kernels/selective_scan.hpp"

namespace longstrand::cpu {

inline constexpr std::int64_t kScanCheckpoint_tokens = scan_checkpoint_tokens(DeviceKind::cpu);

template <class T>
void selective_scan_forward(const SelectiveScanInput<T>& input, const SelectiveScanOutput<T>& output,
                            Context& context);

template <class T>
void selective_scan_backward(const SelectiveScanInput<T>& input, const SelectiveScanGradient<T>& gradient,
                             Context& context);

}  // namespace longstrand::cpu
