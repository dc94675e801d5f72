#include "src/config.hpp"

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "kernels/check.hpp"
#include "src/vocabulary.hpp"

namespace longstrand {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

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

constexpr const char* kAdd = "add";  // values of "bidirectional_strategy"
constexpr const char* kMultiply = "ew_multiply";

/// dt_rank as an integer, or 0 for "auto" and absence.
std::int64_t read_dt_rank(const json& object, const std::string& key) {
  const auto found = object.find(key);
  if (found != object.end() && found->is_string() && *found == "auto") return 0;
  return read_int(object, key, 0, 0, kMostChannels);
}

double read_epsilon(const json& object, const std::string& key, double fallback) {
  const auto found = object.find(key);
  if (found == object.end()) return fallback;
  if (!found->is_number()) refuse(key, "expected a number");
  const auto epsilon = found->get<double>();
  if (!(epsilon > 0 && epsilon < 1)) refuse(key, "expected 0 to 1");
  return epsilon;
}

/// What state-spaces/mamba and Caduceus, which was made from it, spell alike.
ModelConfig parse_mamba_keys(const json& object, const json& ssm) {
  ModelConfig config;
  config.d_model = read_int(object, "d_model", kMissing, 1, kMostChannels);
  config.n_layer = read_int(object, "n_layer", kMissing, 1, kMostLayers);
  config.vocab_size = read_int(object, "vocab_size", kMissing, 1, kMostTokens);
  config.pad_vocab_size_multiple = read_int(object, "pad_vocab_size_multiple", 8, 1, kMostTokens);
  require_bool(object, "rms_norm", true, "models with LayerNorm are not supported, only RMSNorm");
  config.d_state = read_int(ssm, "d_state", 16, 1, 256);
  config.d_conv = read_int(ssm, "d_conv", 4, 2, 8);
  config.expand = read_int(ssm, "expand", 2, 1, 16);
  config.dt_rank = read_dt_rank(ssm, "dt_rank");
  require_bool(ssm, "bias", false, "models with biases in their projections are not supported");
  require_bool(ssm, "conv_bias", true, "models without a bias in conv1d are not supported");
  return config;
}

json read_ssm_cfg(const json& object) {
  json ssm = object.value("ssm_cfg", json());
  if (ssm.is_null()) return json::object();
  if (!ssm.is_object()) refuse("ssm_cfg", "expected an object");
  return ssm;
}

ModelConfig parse_state_spaces(const json& object) {
  const json ssm = read_ssm_cfg(object);
  ModelConfig config = parse_mamba_keys(object, ssm);
  config.tie_embeddings = read_bool(object, "tie_embeddings", true);
  if (read_int(object, "d_intermediate", 0, 0, kMostChannels) != 0) {
    refuse("d_intermediate", "models with MLP blocks are not supported");
  }
  if (object.contains("attn_layer_idx") && !object["attn_layer_idx"].empty()) {
    refuse("attn_layer_idx", "models with attention layers are not supported");
  }
  if (ssm.contains("layer")) {
    if (!ssm["layer"].is_string()) refuse("ssm_cfg.layer", "expected a string");
    config.mixer = ssm["layer"].get<std::string>();
    if (config.mixer == kBidirectionalMixer) {
      refuse("ssm_cfg.layer",
             concat("\"", kBidirectionalMixer, "\" models come with model_type \"caduceus\""));
    }
  }
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
  config.norm_epsilon = read_epsilon(object, "layer_norm_epsilon", config.norm_epsilon);
  if (object.value("hidden_act", json("silu")) != "silu") refuse("hidden_act", "only \"silu\" is supported");
  require_bool(object, "use_bias", false, "models with biases in their projections are not supported");
  require_bool(object, "use_conv_bias", true, "models without a bias in conv1d are not supported");
  return config;
}

Combination read_combination(const json& object) {
  const json strategy = object.value("bidirectional_strategy", json());
  if (strategy.is_null() || strategy == kAdd) return Combination::add;
  if (strategy == kMultiply) return Combination::multiply;
  refuse("bidirectional_strategy",
         concat("expected \"", kAdd, "\" or \"", kMultiply, "\", got ", strategy.dump()));
}

/// The map may be shorter than the vocabulary: further tokens are their own complements.
void check_complement_map(const json& object, bool required) {
  const std::string key = "complement_map";
  const json map = object.value(key, json());
  if (map.is_null()) {
    if (required) refuse(key, "missing, and \"rcps\" needs it");
    return;
  }
  if (!map.is_object() || map.size() <= kLastBase || map.size() > kMostTokens) {
    refuse(key, "expected an object that has every token's complement");
  }
  for (std::size_t token = 0; token < map.size(); ++token) {
    const int expected = complement(static_cast<std::uint8_t>(token));
    const json found = map.value(std::to_string(token), json());
    if (found == expected) continue;
    refuse(key, concat("token ", token, " has ", found.dump(), " and not ", expected,
                       " as its complement: not the DNA alphabet known here (A 7, C 8, G 9, T 10, N 11)"));
  }
}

ModelConfig parse_caduceus(const json& object) {
  ModelConfig config = parse_mamba_keys(object, read_ssm_cfg(object));
  require_bool(object, "bidirectional", true, "Caduceus models of one direction are not supported");
  config.mixer = kBidirectionalMixer;
  config.combination = read_combination(object);
  config.tie_directions = read_bool(object, "bidirectional_weight_tie", true);
  config.equivariant = read_bool(object, "rcps", false);
  config.exchange_residuals = !config.equivariant || read_bool(object, "fused_add_norm", true);
  config.norm_epsilon = read_epsilon(object, "norm_epsilon", config.norm_epsilon);
  // Of a model with "rcps" the original ties them whatever the key says.
  config.tie_embeddings = config.equivariant || read_bool(object, "tie_word_embeddings", true);
  check_complement_map(object, config.equivariant);
  return config;
}

ordered_json dt_rank_to_json(const ModelConfig& config) {
  return config.dt_rank > 0 ? ordered_json(config.dt_rank) : ordered_json("auto");
}

ordered_json to_state_spaces(const ModelConfig& config) {
  return {{"d_model", config.d_model},
          {"d_intermediate", 0},
          {"n_layer", config.n_layer},
          {"vocab_size", config.vocab_size},
          {"ssm_cfg",
           {{"layer", config.mixer},
            {"d_state", config.d_state},
            {"d_conv", config.d_conv},
            {"expand", config.expand},
            {"dt_rank", dt_rank_to_json(config)}}},
          {"attn_layer_idx", ordered_json::array()},
          {"attn_cfg", ordered_json::object()},
          {"rms_norm", true},
          {"residual_in_fp32", true},
          {"fused_add_norm", true},
          {"pad_vocab_size_multiple", config.pad_vocab_size_multiple},
          {"tie_embeddings", config.tie_embeddings}};
}

ordered_json to_hugging_face(const ModelConfig& config) {
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

/// In the tokens' order: the original reads the values alone.
ordered_json complement_map_to_json(const ModelConfig& config) {
  if (!config.equivariant) return nullptr;
  ordered_json map;
  for (std::int64_t token = 0; token < config.padded_vocab(); ++token) {
    map[std::to_string(token)] = complement(static_cast<std::uint8_t>(token));
  }
  return map;
}

ordered_json to_caduceus(const ModelConfig& config) {
  ordered_json object = {
      {"architectures", {"CaduceusForMaskedLM"}},
      {"model_type", "caduceus"},
      {"d_model", config.d_model},
      {"n_layer", config.n_layer},
      {"vocab_size", config.padded_vocab()},
      {"ssm_cfg",
       {{"d_state", config.d_state},
        {"d_conv", config.d_conv},
        {"expand", config.expand},
        {"dt_rank", dt_rank_to_json(config)},
        {"dt_min", kSmallestStep},
        {"dt_max", kLargestStep},
        {"dt_init", "random"},
        {"dt_scale", 1.0},
        {"dt_init_floor", kStepFloor},
        {"conv_bias", true},
        {"bias", false},
        {"use_fast_path", true}}},
      {"rms_norm", true},
      {"residual_in_fp32", true},
      {"fused_add_norm", config.exchange_residuals},
      {"pad_vocab_size_multiple", config.pad_vocab_size_multiple},
      {"norm_epsilon", config.norm_epsilon},
      {"bidirectional", true},
      {"bidirectional_strategy", config.combination == Combination::add ? kAdd : kMultiply},
      {"bidirectional_weight_tie", config.tie_directions},
      {"rcps", config.equivariant},
      {"complement_map", complement_map_to_json(config)}};
  // As transformers writes it: only where it is not the default.
  if (!config.tie_embeddings) object["tie_word_embeddings"] = false;
  return object;
}

}  // namespace

void check_config(const ModelConfig& config) {
  if (config.equivariant && !(config.bidirectional() && config.tie_embeddings)) {
    throw std::invalid_argument("an equivariant model is bidirectional, and its embeddings are tied");
  }
}

ModelConfig parse_config(const json& object, CheckpointLayout* layout) {
  if (!object.is_object()) throw std::runtime_error("expected a JSON object");
  const std::string model_type =
      object.contains("model_type") && object["model_type"].is_string() ? object["model_type"] : json("");
  const auto read_as = [&](CheckpointLayout found, ModelConfig (*parse)(const json&)) {
    if (layout) *layout = found;
    return parse(object);
  };
  if (model_type == "caduceus") return read_as(CheckpointLayout::caduceus, parse_caduceus);
  if (!model_type.empty() && model_type != "mamba") {
    refuse("model_type",
           concat("\"", model_type,
                  "\" models are not supported by this version; \"mamba\" and \"caduceus\" are"));
  }
  if (model_type == "mamba" && object.contains("hidden_size")) {
    return read_as(CheckpointLayout::hugging_face, parse_hugging_face);
  }
  return read_as(CheckpointLayout::state_spaces, parse_state_spaces);
}

ordered_json to_json(const ModelConfig& config, CheckpointLayout layout) {
  if (config.bidirectional() != (layout == CheckpointLayout::caduceus)) {
    throw std::invalid_argument(config.bidirectional() ? "a bidirectional model has only the caduceus layout"
                                                       : "the caduceus layout is for bidirectional models");
  }
  switch (layout) {
    case CheckpointLayout::state_spaces:
      return to_state_spaces(config);
    case CheckpointLayout::hugging_face:
      return to_hugging_face(config);
    case CheckpointLayout::caduceus:
      return to_caduceus(config);
  }
  throw std::logic_error("unknown layout");
}

std::string describe(const ModelConfig& config) {
  if (config.equivariant) return "Caduceus-PS, bidirectional, reverse-complement equivariant";
  return config.bidirectional() ? "Caduceus-Ph, bidirectional" : "Mamba, causal";
}

}  // namespace longstrand
