#include "src/tensor_names.hpp"

#include <stdexcept>
#include <string_view>

#include "src/model.hpp"

namespace longstrand {
namespace {

constexpr const char* kCaduceusEmbeddings = "caduceus.backbone.embeddings.word_embeddings.";

/// Caduceus-PS wraps every module that must be equivariant; where add and norm are fused, norms are not
/// modules.
std::string name_in_caduceus(std::string name, const ModelConfig& config) {
  if (config.equivariant && name == kLmHeadWeight) return "lm_head.lm_head.weight";
  if (!name.starts_with("backbone.")) return name;
  if (name == kEmbeddingWeight)
    return std::string(kCaduceusEmbeddings) + (config.equivariant ? "embedding.weight" : "weight");
  const auto wrap = [&name](std::string_view module) {
    const std::size_t at = name.find(module);
    if (at != std::string::npos) name.insert(at + module.size(), "submodule.");
  };
  if (config.equivariant) wrap(".mixer.");
  if (config.equivariant && !config.exchange_residuals) {
    wrap(".norm.");
    wrap(".norm_f.");
  }
  return "caduceus." + name;
}

}  // namespace

std::string name_in_layout(const std::string& name, const ModelConfig& config, CheckpointLayout layout) {
  switch (layout) {
    case CheckpointLayout::state_spaces:
      return name;
    case CheckpointLayout::hugging_face:
      return name == kEmbeddingWeight ? "backbone.embeddings.weight" : name;
    case CheckpointLayout::caduceus:
      return name_in_caduceus(name, config);
  }
  throw std::logic_error("unknown layout");
}

std::vector<TiedParameter> tied_parameters(const ModelConfig& config) {
  std::vector<TiedParameter> tied;
  if (config.tie_embeddings) tied.push_back({kLmHeadWeight, kEmbeddingWeight});
  if (!config.bidirectional() || !config.tie_directions) return tied;
  for (std::int64_t i = 0; i < config.n_layer; ++i) {
    const std::string mixer = layer_prefix(i) + "mixer.";
    for (const char* name : {"in_proj.weight", "out_proj.weight"}) {
      tied.push_back({mixer + "mamba_rev." + name, mixer + "mamba_fwd." + name});
    }
  }
  return tied;
}

std::vector<std::string> complement_map_names(const ModelConfig& config) {
  if (!config.equivariant) return {};
  return {std::string(kCaduceusEmbeddings) + "complement_map", "lm_head.complement_map"};
}

}  // namespace longstrand
