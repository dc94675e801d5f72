// Both strands of a record as the lanes of a reverse-complement-equivariant model (src/record_sheet.hpp).
#pragma once

#include "kernels/context.hpp"
#include "kernels/memory.hpp"
#include "src/config.hpp"

namespace longstrand {

/// Lanes that a record takes.
inline int strands_of(const ModelConfig& config) { return config.equivariant ? 2 : 1; }

/// For each column of logits that of the complementary token, [V], where operations of `context` read it.
Array<std::int32_t, 1> facing_logits(std::int64_t vocabulary, Context& context);

}  // namespace longstrand
