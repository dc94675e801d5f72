// A model: architecture, weights, and, once fine-tuned, a classifier's labels and head. In a folder:
//
//   config.json, model.safetensors  exactly the original layout: the Python implementations open them
//   longstrand.json                 what Longstrand adds: alphabet, norm epsilon, the classifier's labels
//   head.safetensors                the classifier's weight [classes, d_model] and bias [classes]
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "kernels/pooling.hpp"
#include "src/config.hpp"
#include "src/parameters.hpp"

namespace longstrand {

struct ClassifierSpec {
  std::vector<std::string> labels;  // sorted; position = class id
  Pooling pooling = Pooling::mean;  // mean or last
  std::int64_t window_bases = 0;    // windows it was trained on; 0: whole records
  std::int64_t stride_bases = 0;
};

class Model {
 public:
  /// Initialised as the original code does (state-spaces/mamba, modules/mamba_simple.py; Caduceus alike),
  /// from `seed`. Throws as check_config.
  Model(ModelConfig config, std::uint64_t seed);
  /// Throws std::runtime_error that names the file and the tensor or key at fault.
  static Model load(const std::filesystem::path& folder);
  /// Every file is written under a temporary name and renamed; creates the folder. Throws
  /// std::invalid_argument where the layout does not know such models; without one, it is native_layout.
  void save(const std::filesystem::path& folder) const;
  void save(const std::filesystem::path& folder, CheckpointLayout layout) const;

  /// Adds (or replaces) a classifier head, initialised from `seed`: small uniform weight, zero bias. Views of
  /// the parameters, and every Inference and Trainer of this model, are void from then on.
  void set_classifier(ClassifierSpec classifier, std::uint64_t seed);

  const ModelConfig& config() const { return config_; }
  const std::optional<ClassifierSpec>& classifier() const { return classifier_; }
  const ParameterStore& parameters() const { return parameters_; }
  ParameterStore& parameters() { return parameters_; }
  std::int64_t parameter_count() const;
  /// 16 hex digits over architecture and weights: equal models, equal fingerprints.
  std::string fingerprint() const;

 private:
  Model() = default;
  ModelConfig config_;
  std::optional<ClassifierSpec> classifier_;
  ParameterStore parameters_;
};

// Names in the ParameterStore: those of the state-spaces layout, and the classifier's.
inline constexpr const char* kEmbeddingWeight = "backbone.embedding.weight";  // [V, d_model]
inline constexpr const char* kFinalNormWeight = "backbone.norm_f.weight";     // [d_model]
inline constexpr const char* kLmHeadWeight = "lm_head.weight";                // [V, d_model], if not tied
inline constexpr const char* kHeadWeight = "classifier.weight";               // [classes, d_model]
inline constexpr const char* kHeadBias = "classifier.bias";                   // [classes]
/// "backbone.layers.INDEX."
std::string layer_prefix(std::int64_t index);

}  // namespace longstrand
