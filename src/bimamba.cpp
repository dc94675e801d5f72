#include "src/bimamba.hpp"

#include "src/mamba1.hpp"

namespace longstrand {

std::vector<ParameterSpec> declare_bimamba1(const ModelConfig& config, const std::string& prefix) {
  std::vector<ParameterSpec> specs = declare_mamba1(config, prefix + "mamba_fwd.");
  for (ParameterSpec& spec : declare_mamba1(config, prefix + "mamba_rev.")) {
    const bool tied = spec.name.ends_with(".in_proj.weight") || spec.name.ends_with(".out_proj.weight");
    if (!(tied && config.tie_directions)) specs.push_back(std::move(spec));
  }
  return specs;
}

void initialise_bimamba1(const ModelConfig& config, const std::string& prefix, ParameterStore& weights,
                         std::mt19937_64& random) {
  initialise_mamba1(config, prefix + "mamba_fwd.", weights, random);
  initialise_mamba1(config, prefix + "mamba_rev.", weights, random);
}

}  // namespace longstrand
