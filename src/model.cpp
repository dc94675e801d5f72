#include "src/model.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "kernels/check.hpp"
#include "src/mixer.hpp"
#include "src/random.hpp"
#include "src/safetensors.hpp"
#include "src/seeded_hash.hpp"
#include "src/tensor_names.hpp"
#include "src/vocabulary.hpp"

namespace longstrand {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

std::vector<ParameterSpec> declare_parameters(const ModelConfig& config,
                                              const std::optional<ClassifierSpec>& classifier) {
  std::vector<ParameterSpec> specs;
  const std::vector<std::int64_t> table_shape = {config.padded_vocab(), config.d_model};
  specs.push_back({.name = kEmbeddingWeight, .shape = table_shape, .decay = true});
  for (std::int64_t i = 0; i < config.n_layer; ++i) {
    const std::string prefix = layer_prefix(i);
    specs.push_back({.name = prefix + "norm.weight", .shape = {config.d_model}});
    for (ParameterSpec& spec : find_mixer(config.mixer).declare(config, prefix + "mixer.")) {
      specs.push_back(std::move(spec));
    }
  }
  specs.push_back({.name = kFinalNormWeight, .shape = {config.d_model}});
  if (!config.tie_embeddings) specs.push_back({.name = kLmHeadWeight, .shape = table_shape, .decay = true});
  if (classifier) {
    const auto classes = static_cast<std::int64_t>(classifier->labels.size());
    specs.push_back({.name = kHeadWeight, .shape = {classes, config.d_model}, .decay = true});
    specs.push_back({.name = kHeadBias, .shape = {classes}});
  }
  return specs;
}

bool is_head(const std::string& name) { return name == kHeadWeight || name == kHeadBias; }

json read_json(const fs::path& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path.string() + ": cannot open: " + std::strerror(errno));
  json object = json::parse(file, nullptr, false);
  if (object.is_discarded()) throw std::runtime_error(path.string() + ": not valid JSON");
  return object;
}

void write_json(const fs::path& path, const nlohmann::ordered_json& object) {
  const std::string text = object.dump(2) + "\n";
  const std::span<const char> part(text);
  write_file_atomically(path, {&part, 1});
}

/// The error that tells the way out to those who have only the pickled file that the original code writes.
[[noreturn]] void refuse_pickle(const fs::path& folder) {
  throw std::runtime_error(
      folder.string() +
      ": holds pytorch_model.bin but no model.safetensors; convert it once with: python -c \"import torch, "
      "safetensors.torch as s; s.save_file({k: v.clone() for k, v in "
      "torch.load('pytorch_model.bin').items()}, "
      "'model.safetensors', metadata={'format': 'pt'})\"");
}

std::optional<ClassifierSpec> read_classifier(const fs::path& path, const json& object) {
  if (!object.contains("classifier")) return std::nullopt;
  try {
    const json& entry = object.at("classifier");
    ClassifierSpec spec;
    spec.labels = entry.at("labels").get<std::vector<std::string>>();
    spec.pooling = parse_pooling(entry.at("pooling").get<std::string>());
    spec.window_bases = entry.at("window_bases").get<std::int64_t>();
    spec.stride_bases = entry.at("stride_bases").get<std::int64_t>();
    if (spec.labels.empty()) throw std::runtime_error("no labels");
    if (spec.pooling == Pooling::max) throw std::runtime_error("its pooling cannot be max");
    return spec;
  } catch (const std::exception& error) {
    throw std::runtime_error(path.string() + ": classifier: " + error.what());
  }
}

json describe_additions(const ModelConfig& config, const std::optional<ClassifierSpec>& classifier) {
  json object = {
      {"format", 1},
      {"norm_epsilon", config.norm_epsilon},
      {"alphabet",
       {{"tokens",
         {"[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", "[RESERVED]", "[UNK]", "A", "C", "G", "T", "N"}},
        {"case", "folded"}}}};
  if (classifier) {
    object["classifier"] = {{"labels", classifier->labels},
                            {"pooling", pooling_name(classifier->pooling)},
                            {"window_bases", classifier->window_bases},
                            {"stride_bases", classifier->stride_bases}};
  }
  return object;
}

/// A file may hold the padded vocabulary or, written by others, config's size as it is.
void adopt_stored_vocabulary(const SafetensorsReader& weights, const std::string& embedding_name,
                             ModelConfig& config) {
  const auto found = weights.tensors().find(embedding_name);
  const bool table = found != weights.tensors().end() && found->second.shape.size() == 2;
  if (table && found->second.shape[0] != config.padded_vocab() &&
      found->second.shape[0] == config.vocab_size) {
    config.pad_vocab_size_multiple = 1;
  }
  if (config.padded_vocab() < kVocabulary) {
    throw std::runtime_error(concat("key \"vocab_size\": ", config.vocab_size, " tokens cannot hold the ",
                                    kVocabulary, " of the DNA alphabet (A 7, C 8, G 9, T 10, N 11)"));
  }
}

/// Of the whole padded vocabulary, as files hold it.
std::vector<std::int64_t> complement_map(const ModelConfig& config) {
  std::vector<std::int64_t> map;
  for (std::int64_t token = 0; token < config.padded_vocab(); ++token) {
    map.push_back(complement(static_cast<std::uint8_t>(token)));
  }
  return map;
}

void check_complement_maps(SafetensorsReader& weights, const ModelConfig& config) {
  const std::vector<std::int64_t> expected = complement_map(config);
  std::vector<std::int64_t> found(expected.size());
  for (const std::string& name : complement_map_names(config)) {
    if (!weights.tensors().contains(name)) continue;  // config.json has told
    weights.read(name, std::array{config.padded_vocab()}, found);
    if (found != expected) {
      weights.fail("tensor " + name +
                   ": not the complements of the DNA alphabet (A 7, C 8, G 9, T 10, N 11)");
    }
  }
}

/// Where a file holds tied tensors too, they must be what they are tied to.
void check_tied_tensors(SafetensorsReader& weights, const Model& model, CheckpointLayout layout) {
  for (const auto& [tied, original] : tied_parameters(model.config())) {
    const std::string name = name_in_layout(tied, model.config(), layout);
    if (!weights.tensors().contains(name)) continue;
    const ParameterSpec& spec = model.parameters().spec(original);
    std::vector<float> values(static_cast<std::size_t>(spec.size()));
    weights.read(name, spec.shape, std::span(values));
    if (std::memcmp(values.data(), model.parameters().flat(original).data, values.size() * sizeof(float)) !=
        0) {
      // transformers 4.57 takes tied directions apart when it loads them.
      const char* const way_out = original == kEmbeddingWeight ? ""
                                                               : "; if they were trained apart, write "
                                                                 "\"bidirectional_weight_tie\": false there";
      weights.fail("tensor " + name + ": differs from " + name_in_layout(original, model.config(), layout) +
                   ", which config.json ties it to" + way_out);
    }
  }
}

}  // namespace

std::string layer_prefix(std::int64_t index) { return "backbone.layers." + std::to_string(index) + "."; }

Model::Model(ModelConfig config, std::uint64_t seed) : config_(std::move(config)) {
  check_config(config_);
  parameters_ = ParameterStore(declare_parameters(config_, std::nullopt));
  std::mt19937_64 random(seed);
  const auto fill_normal = [&](const char* name) {
    const View<float, 1> values = parameters_.flat(name);
    std::generate_n(values.data, values.size(), [&] { return static_cast<float>(0.02 * normal(random)); });
  };
  const auto fill_ones = [&](const std::string& name) {
    const View<float, 1> values = parameters_.flat(name);
    std::fill_n(values.data, values.size(), 1.0F);
  };
  fill_normal(kEmbeddingWeight);
  for (std::int64_t i = 0; i < config_.n_layer; ++i) {
    fill_ones(layer_prefix(i) + "norm.weight");
    find_mixer(config_.mixer).initialise(config_, layer_prefix(i) + "mixer.", parameters_, random);
  }
  fill_ones(kFinalNormWeight);
  if (!config_.tie_embeddings) fill_normal(kLmHeadWeight);
}

Model Model::load(const fs::path& folder) {
  const fs::path config_path = folder / "config.json";
  const fs::path weights_path = folder / "model.safetensors";
  const fs::path additions_path = folder / "longstrand.json";
  if (!fs::exists(config_path)) {
    throw std::runtime_error(folder.string() + ": not a model folder: it has no config.json");
  }
  if (!fs::exists(weights_path) && fs::exists(folder / "pytorch_model.bin")) refuse_pickle(folder);
  const json additions = fs::exists(additions_path) ? read_json(additions_path) : json::object();
  SafetensorsReader weights(weights_path);
  Model model;
  CheckpointLayout layout{};
  try {
    model.config_ = parse_config(read_json(config_path), &layout);
    find_mixer(model.config_.mixer);
    if (layout == CheckpointLayout::state_spaces) {  // which has no key for it
      model.config_.norm_epsilon = additions.value("norm_epsilon", model.config_.norm_epsilon);
    }
    adopt_stored_vocabulary(weights, name_in_layout(kEmbeddingWeight, model.config_, layout), model.config_);
  } catch (const std::exception& error) {
    throw std::runtime_error(config_path.string() + ": " + error.what());
  }
  model.classifier_ = read_classifier(additions_path, additions);
  std::optional<SafetensorsReader> head;
  if (model.classifier_) head.emplace(folder / "head.safetensors");
  const auto file_of = [&](const ParameterSpec& spec) -> SafetensorsReader& {
    return is_head(spec.name) ? *head : weights;
  };
  const auto stored_name = [&](const ParameterSpec& spec) {
    return name_in_layout(spec.name, model.config_, layout);
  };
  // All shapes first: memory is asked for only when the files really hold a model of that size.
  std::vector<ParameterSpec> specs = declare_parameters(model.config_, model.classifier_);
  for (const ParameterSpec& spec : specs) {
    file_of(spec).require_shape(stored_name(spec), spec.shape);
  }
  model.parameters_ = ParameterStore(std::move(specs));
  for (const ParameterSpec& spec : model.parameters_.specs()) {
    const View<float, 1> view = model.parameters_.flat(spec.name);
    const std::span<float> values(view.data, static_cast<std::size_t>(view.size()));
    SafetensorsReader& file = file_of(spec);
    file.read(stored_name(spec), spec.shape, values);
    if (!std::ranges::all_of(values, [](float value) { return std::isfinite(value); })) {
      file.fail("tensor " + stored_name(spec) +
                ": holds NaN or infinity: the model is of a training that failed");
    }
  }
  check_tied_tensors(weights, model, layout);
  check_complement_maps(weights, model.config_);
  return model;
}

void Model::save(const fs::path& folder) const { save(folder, native_layout(config_)); }

void Model::save(const fs::path& folder, CheckpointLayout layout) const {
  const nlohmann::ordered_json config = to_json(config_, layout);  // throws before anything is written
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw std::runtime_error(folder.string() + ": cannot create: " + error.message());
  std::vector<NamedTensor> backbone, head;
  const auto tensor = [&](const ParameterSpec& spec, const std::string& name) {
    const View<const float, 1> values = parameters_.flat(spec.name);
    return NamedTensor{name, spec.shape, std::span(values.data, static_cast<std::size_t>(values.size()))};
  };
  for (const ParameterSpec& spec : parameters_.specs()) {
    (is_head(spec.name) ? head : backbone)
        .push_back(tensor(spec, name_in_layout(spec.name, config_, layout)));
  }
  const std::vector<std::int64_t> complements = complement_map(config_);
  for (const std::string& name : complement_map_names(config_)) {
    backbone.push_back({name, {config_.padded_vocab()}, complements});
  }
  // Tied weights are written under both names: strict load_state_dict asks for both, and of recent versions
  // of transformers, so does from_pretrained (4.57 fills what is missing of Caduceus with random numbers).
  for (const auto& [tied, original] : tied_parameters(config_)) {
    backbone.push_back(tensor(parameters_.spec(original), name_in_layout(tied, config_, layout)));
  }
  write_safetensors(folder / "model.safetensors", backbone);
  if (!head.empty()) {
    write_safetensors(folder / "head.safetensors", head);
  } else {
    fs::remove(folder / "head.safetensors", error);  // of a model that was there before
  }
  write_json(folder / "longstrand.json", describe_additions(config_, classifier_));
  write_json(folder / "config.json", config);
}

void Model::set_classifier(ClassifierSpec classifier, std::uint64_t seed) {
  classifier_ = std::move(classifier);
  ParameterStore extended(declare_parameters(config_, classifier_));
  for (const ParameterSpec& spec : parameters_.specs()) {
    if (is_head(spec.name)) continue;
    std::copy_n(parameters_.flat(spec.name).data, spec.size(), extended.flat(spec.name).data);
  }
  parameters_ = std::move(extended);
  std::mt19937_64 random(seed);
  const double bound = 1.0 / std::sqrt(static_cast<double>(config_.d_model));
  const View<float, 1> weight = parameters_.flat(kHeadWeight);
  std::generate_n(weight.data, weight.size(),
                  [&] { return static_cast<float>(uniform(random, -bound, bound)); });
}

std::int64_t Model::parameter_count() const {
  std::int64_t count = 0;
  for (const ParameterSpec& spec : parameters_.specs()) count += spec.size();
  return count;
}

std::string Model::fingerprint() const {
  // Resolved values: the layouts spell the same architecture differently.
  std::string config_text =
      concat(config_.mixer, ' ', config_.d_model, ' ', config_.n_layer, ' ', config_.padded_vocab(), ' ',
             config_.d_state, ' ', config_.d_conv, ' ', config_.expand, ' ', config_.dt_rank_or_auto(), ' ',
             config_.norm_epsilon, ' ', config_.tie_embeddings);
  if (config_.bidirectional()) {
    config_text += concat(' ', static_cast<int>(config_.combination), ' ', config_.tie_directions, ' ',
                          config_.equivariant, ' ', config_.exchange_residuals);
  }
  std::uint64_t hash = fnv1a(config_text);
  for (const ParameterSpec& spec : parameters_.specs()) {
    const auto* values = reinterpret_cast<const char*>(parameters_.flat(spec.name).data);
    hash = fnv1a(spec.name, hash);
    hash = fnv1a({values, static_cast<std::size_t>(spec.size()) * sizeof(float)}, hash);
  }
  std::ostringstream text;
  text << std::hex;
  text.width(16);
  text.fill('0');
  text << hash;
  return text.str();
}

}  // namespace longstrand
