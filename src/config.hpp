// The architecture of a model, and its config.json in the layouts of state-spaces/mamba and Hugging Face.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace longstrand {

struct ModelConfig {
  std::string mixer = "Mamba1";  // a name of the mixer table (src/mixer.hpp)
  std::int64_t d_model = 256;
  std::int64_t n_layer = 8;
  std::int64_t vocab_size = 12;  // as trained; tensors hold padded_vocab() rows
  std::int64_t pad_vocab_size_multiple = 8;
  std::int64_t d_state = 16;
  std::int64_t d_conv = 4;
  std::int64_t expand = 2;
  std::int64_t dt_rank = 0;  // 0: ceil(d_model / 16)
  double norm_epsilon = 1e-5;
  bool tie_embeddings = true;

  std::int64_t d_inner() const { return expand * d_model; }
  std::int64_t dt_rank_or_auto() const { return dt_rank > 0 ? dt_rank : (d_model + 15) / 16; }
  std::int64_t padded_vocab() const {
    return (vocab_size + pad_vocab_size_multiple - 1) / pad_vocab_size_multiple * pad_vocab_size_multiple;
  }
  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

enum class CheckpointLayout : std::uint8_t { state_spaces, hugging_face };

/// Reads either layout. Throws std::runtime_error that names the key where a value is missing, of the wrong
/// type, out of range, or asks for what this version cannot run (Mamba2, attention, biases, LayerNorm,
/// Caduceus).
ModelConfig parse_config(const nlohmann::json& json, CheckpointLayout* layout = nullptr);

nlohmann::json to_json(const ModelConfig& config, CheckpointLayout layout);

}  // namespace longstrand
