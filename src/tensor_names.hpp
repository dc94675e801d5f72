// Names of tensors in model.safetensors, layout by layout.
#pragma once

#include <string>
#include <vector>

#include "src/config.hpp"

namespace longstrand {

/// The name that a parameter of the ParameterStore has in that layout.
std::string name_in_layout(const std::string& name, const ModelConfig& config, CheckpointLayout layout);

/// Caduceus-PS keeps its tokens' complements, I64 [V], beside the weights that they go with; others have
/// none.
std::vector<std::string> complement_map_names(const ModelConfig& config);

}  // namespace longstrand
