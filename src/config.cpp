#include "src/config.hpp"

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "kernels/check.hpp"

namespace longstrand {
namespace {

using nlohmann::json;

[[noreturn]] void refuse(const std::string& key, const std::string& what) {
  throw std::runtime_error(concat("key \"", key, "\": ", what));
}

std::int64_t read_int(const json& object, const std::string& key, std::int64_t fallback, std::int64_t least,
                      std::int64_t most) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) {
    if (fallback < least) refuse(key, "missing");
    return fallback;
  }
  if (!found->is_number_integer()) refuse(key, concat("expected an integer, got ", found->dump()));
  const auto value = found->get<std::int64_t>();
  if (value < least || value > most) refuse(key, concat("expected ", least, " to ", most, ", got ", value));
  return value;
}

bool read_bool(const json& object, const std::string& key, bool fallback) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return fallback;
  if (!found->is_boolean()) refuse(key, concat("expected true or false, got ", found->dump()));
  return found->get<bool>();
}

void require_bool(const json& object, const std::string& key, bool needed, const char* why) {
  if (read_bool(object, key, needed) != needed) refuse(key, why);
}

constexpr std::int64_t kMissing = -1;
constexpr std::int64_t kMostChannels = std::int64_t{1} << 16;
constexpr std::int64_t kMostLayers = 4096;
constexpr std::int64_t kMostTokens = 256;  // token ids are bytes

/// dt_rank as an integer, or 0 for "auto" and absence.
std::int64_t read_dt_rank(const json& object, const std::string& key) {
  const auto found = object.find(key);
  if (found != object.end() && found->is_string() && *found == "auto") return 0;
  return read_int(object, key, 0, 0, kMostChannels);
}

ModelConfig parse_state_spaces(const json& object) {
  ModelConfig config;
  config.d_model = read_int(object, "d_model", kMissing, 1, kMostChannels);
  config.n_layer = read_int(object, "n_layer", kMissing, 1, kMostLayers);
  config.vocab_size = read_int(object, "vocab_size", kMissing, 1, kMostTokens);
  config.pad_vocab_size_multiple = read_int(object, "pad_vocab_size_multiple", 8, 1, kMostTokens);
  config.tie_embeddings = read_bool(object, "tie_embeddings", true);
  require_bool(object, "rms_norm", true, "models with LayerNorm are not supported, only RMSNorm");
  if (read_int(object, "d_intermediate", 0, 0, kMostChannels) != 0) {
    refuse("d_intermediate", "models with MLP blocks are not supported");
  }
  if (object.contains("attn_layer_idx") && !object["attn_layer_idx"].empty()) {
    refuse("attn_layer_idx", "models with attention layers are not supported");
  }
  const json ssm = object.value("ssm_cfg", json::object());
  if (!ssm.is_object()) refuse("ssm_cfg", "expected an object");
  if (ssm.contains("layer")) {
    if (!ssm["layer"].is_string()) refuse("ssm_cfg.layer", "expected a string");
    config.mixer = ssm["layer"].get<std::string>();
  }
  config.d_state = read_int(ssm, "d_state", 16, 1, 256);
  config.d_conv = read_int(ssm, "d_conv", 4, 2, 8);
  config.expand = read_int(ssm, "expand", 2, 1, 16);
  config.dt_rank = read_dt_rank(ssm, "dt_rank");
  require_bool(ssm, "bias", false, "models with biases in their projections are not supported");
  require_bool(ssm, "conv_bias", true, "models without a bias in conv1d are not supported");
  return config;
}

ModelConfig parse_hugging_face(const json& object) {
  ModelConfig config;
  config.d_model = read_int(object, "hidden_size", kMissing, 1, kMostChannels);
  config.n_layer = read_int(object, "num_hidden_layers", kMissing, 1, kMostLayers);
  config.vocab_size = read_int(object, "vocab_size", kMissing, 1, kMostTokens);
  config.pad_vocab_size_multiple = read_int(object, "pad_vocab_size_multiple", 8, 1, kMostTokens);
  config.tie_embeddings = read_bool(object, "tie_word_embeddings", true);
  config.d_state = read_int(object, "state_size", 16, 1, 256);
  config.d_conv = read_int(object, "conv_kernel", 4, 2, 8);
  config.expand = read_int(object, "expand", 2, 1, 16);
  config.dt_rank = read_dt_rank(object, "time_step_rank");
  const std::int64_t d_inner = read_int(object, "intermediate_size", config.d_inner(), 1, kMostChannels);
  if (d_inner != config.d_inner()) refuse("intermediate_size", "expected expand * hidden_size");
  if (object.contains("layer_norm_epsilon")) {
    if (!object["layer_norm_epsilon"].is_number()) refuse("layer_norm_epsilon", "expected a number");
    config.norm_epsilon = object["layer_norm_epsilon"].get<double>();
    if (!(config.norm_epsilon > 0 && config.norm_epsilon < 1))
      refuse("layer_norm_epsilon", "expected 0 to 1");
  }
  if (object.value("hidden_act", json("silu")) != "silu") refuse("hidden_act", "only \"silu\" is supported");
  require_bool(object, "use_bias", false, "models with biases in their projections are not supported");
  require_bool(object, "use_conv_bias", true, "models without a bias in conv1d are not supported");
  return config;
}

}  // namespace

ModelConfig parse_config(const json& object, CheckpointLayout* layout) {
  if (!object.is_object()) throw std::runtime_error("expected a JSON object");
  const std::string model_type =
      object.contains("model_type") && object["model_type"].is_string() ? object["model_type"] : json("");
  if (!model_type.empty() && model_type != "mamba") {
    refuse("model_type",
           concat("\"", model_type, "\" models are not supported by this version; \"mamba\" is"));
  }
  const bool hugging_face = model_type == "mamba" && object.contains("hidden_size");
  if (layout) *layout = hugging_face ? CheckpointLayout::hugging_face : CheckpointLayout::state_spaces;
  return hugging_face ? parse_hugging_face(object) : parse_state_spaces(object);
}

json to_json(const ModelConfig& config, CheckpointLayout layout) {
  if (layout == CheckpointLayout::hugging_face) {
    // transformers does not pad the vocabulary itself: its vocab_size is the number of rows stored.
    return {{"architectures", {"MambaForCausalLM"}},
            {"model_type", "mamba"},
            {"hidden_size", config.d_model},
            {"num_hidden_layers", config.n_layer},
            {"vocab_size", config.padded_vocab()},
            {"state_size", config.d_state},
            {"conv_kernel", config.d_conv},
            {"expand", config.expand},
            {"intermediate_size", config.d_inner()},
            {"time_step_rank", config.dt_rank_or_auto()},
            {"layer_norm_epsilon", config.norm_epsilon},
            {"use_bias", false},
            {"use_conv_bias", true},
            {"hidden_act", "silu"},
            {"residual_in_fp32", true},
            {"tie_word_embeddings", config.tie_embeddings}};
  }
  return {{"d_model", config.d_model},
          {"d_intermediate", 0},
          {"n_layer", config.n_layer},
          {"vocab_size", config.vocab_size},
          {"ssm_cfg",
           {{"layer", config.mixer},
            {"d_state", config.d_state},
            {"d_conv", config.d_conv},
            {"expand", config.expand},
            {"dt_rank", config.dt_rank > 0 ? json(config.dt_rank) : json("auto")}}},
          {"attn_layer_idx", json::array()},
          {"attn_cfg", json::object()},
          {"rms_norm", true},
          {"residual_in_fp32", true},
          {"fused_add_norm", true},
          {"pad_vocab_size_multiple", config.pad_vocab_size_multiple},
          {"tie_embeddings", config.tie_embeddings}};
}

}  // namespace longstrand
