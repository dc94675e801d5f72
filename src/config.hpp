// The architecture of a model, and its config.json in the layouts of state-spaces/mamba, Hugging Face's Mamba
// and Caduceus.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace longstrand {

/// How a bidirectional layer joins the outputs of its two directions.
enum class Combination : std::uint8_t { add, multiply };

/// The name in the mixer table (src/mixer.hpp) of what makes a model bidirectional.
inline constexpr const char* kBidirectionalMixer = "BiMamba1";

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

  // Of bidirectional models:
  Combination combination = Combination::add;
  bool tie_directions = true;      // both directions share in_proj and out_proj
  bool equivariant = false;        // Caduceus-PS: both strands, reverse-complement equivariant
  bool exchange_residuals = true;  // PS: the strands' residuals change places in every block, as they do in
                                   // the original where fused_add_norm is set

  /// Caduceus: every layer also reads from right to left.
  bool bidirectional() const { return mixer == kBidirectionalMixer; }
  std::int64_t d_inner() const { return expand * d_model; }
  std::int64_t dt_rank_or_auto() const { return dt_rank > 0 ? dt_rank : (d_model + 15) / 16; }
  std::int64_t padded_vocab() const {
    return (vocab_size + pad_vocab_size_multiple - 1) / pad_vocab_size_multiple * pad_vocab_size_multiple;
  }
  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

/// state-spaces/mamba, transformers' Mamba, and Caduceus: the last for bidirectional models, the others for
/// causal ones.
enum class CheckpointLayout : std::uint8_t { state_spaces, hugging_face, caduceus };

/// The layout that a model is saved in where none is asked for.
inline CheckpointLayout native_layout(const ModelConfig& config) {
  return config.bidirectional() ? CheckpointLayout::caduceus : CheckpointLayout::state_spaces;
}

/// Throws std::invalid_argument where settings contradict each other.
void check_config(const ModelConfig& config);

/// Reads any layout. Throws std::runtime_error that names the key where a value is missing, of the wrong
/// type, out of range, or asks for what this version cannot run (Mamba2, attention, biases, LayerNorm,
/// another alphabet's complements).
ModelConfig parse_config(const nlohmann::json& json, CheckpointLayout* layout = nullptr);

/// Keys in the order written. Throws std::invalid_argument where the layout does not know such models.
nlohmann::ordered_json to_json(const ModelConfig& config, CheckpointLayout layout);

/// What kind of model it is, in words for users: "Caduceus-Ph, bidirectional".
std::string describe(const ModelConfig& config);

// The range of a channel's first step size, as Mamba draws it.
inline constexpr double kSmallestStep = 1e-3;
inline constexpr double kLargestStep = 0.1;
inline constexpr double kStepFloor = 1e-4;

}  // namespace longstrand
