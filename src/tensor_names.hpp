// Names of tensors in model.safetensors, layout by layout.
#pragma once

#include <string>
#include <vector>

#include "src/config.hpp"

namespace longstrand {

/// The name that a parameter of the ParameterStore, or one that is tied to it, has in that layout.
std::string name_in_layout(const std::string& name, const ModelConfig& config, CheckpointLayout layout);

/// A parameter that the config ties to another: the ParameterStore has only the other, while files hold both
/// or leave this one out.
struct TiedParameter {
  std::string name;  // that it would have in the ParameterStore if it were not tied
  std::string original;
};
std::vector<TiedParameter> tied_parameters(const ModelConfig& config);

/// Caduceus-PS keeps its tokens' complements, I64 [V], beside the weights that they go with; others have
/// none.
std::vector<std::string> complement_map_names(const ModelConfig& config);

}  // namespace longstrand
