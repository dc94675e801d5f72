// The bidirectional Mamba-1 mixer (Caduceus; kuleshov-group/caduceus, modeling_caduceus.py, BiMambaWrapper):
// a Mamba-1 mixer that walks left to right, "mamba_fwd.", and one that walks right to left, "mamba_rev.".
//
// Each direction has parameters of its own, but for in_proj and out_proj where the config ties them: then
// only mamba_fwd's exist, and both directions use them.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "src/config.hpp"
#include "src/parameters.hpp"

namespace longstrand {

std::vector<ParameterSpec> declare_bimamba1(const ModelConfig& config, const std::string& prefix);
/// Each direction as Mamba-1.
void initialise_bimamba1(const ModelConfig& config, const std::string& prefix, ParameterStore& weights,
                         std::mt19937_64& random);

}  // namespace longstrand
