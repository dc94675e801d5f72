// Folders of Caduceus models: what the original wrote is read, and written again as it was.
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "model_support.hpp"
#include "src/mixer.hpp"
#include "src/model.hpp"
#include "src/tensor_names.hpp"
#include "support/temporary_directory.hpp"

namespace longstrand::test {
namespace {

using nlohmann::ordered_json;
namespace fs = std::filesystem;

const std::vector<std::string> kGoldenFolders = {"caduceus_ph_d32_l4", "caduceus_ps_d32_l4",
                                                 "caduceus_ps_unfused_d32_l3"};
const std::string kEmbeddings = "caduceus.backbone.embeddings.word_embeddings.";

ModelConfig bidirectional(ModelConfig config = {.d_model = 32, .n_layer = 2}) {
  config.mixer = kBidirectionalMixer;
  return config;
}

ModelConfig equivariant() {
  ModelConfig config = bidirectional();
  config.equivariant = true;
  return config;
}

ordered_json read_config(const fs::path& folder) {
  return ordered_json::parse(content_of(folder / "config.json"));
}

/// Writes config.json with one key changed.
void change_config(const fs::path& folder, const std::string& key, const ordered_json& value) {
  ordered_json config = read_config(folder);
  config[key] = value;
  std::ofstream(folder / "config.json") << config;
}

struct StoredTensor {
  std::vector<std::int64_t> shape;
  std::vector<float> floats;
  std::vector<std::int64_t> integers;
};
using StoredTensors = std::map<std::string, StoredTensor>;

void change_tensors(const fs::path& folder, const std::function<void(StoredTensors&)>& change) {
  StoredTensors stored;
  {
    SafetensorsReader file(folder / "model.safetensors");
    for (const auto& [name, info] : file.tensors()) {
      StoredTensor& tensor = stored[name];
      tensor.shape = info.shape;
      const auto size = static_cast<std::size_t>(info.size());
      if (info.dtype == "I64") {
        tensor.integers.resize(size);
        file.read(name, info.shape, std::span(tensor.integers));
      } else {
        tensor.floats = read_floats(file, name);
      }
    }
  }
  change(stored);
  std::vector<NamedTensor> tensors;
  for (const auto& [name, tensor] : stored) {
    if (tensor.integers.empty()) {
      tensors.push_back({name, tensor.shape, tensor.floats});
    } else {
      tensors.push_back({name, tensor.shape, tensor.integers});
    }
  }
  write_safetensors(folder / "model.safetensors", tensors);
}

std::string refusal(const fs::path& folder) {
  try {
    Model::load(folder);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "no error";
}

class GoldenCaduceusFolder : public testing::TestWithParam<std::string> {
 protected:
  TemporaryDirectory directory_;
};

/// But for tied tensors, which stand under both names.
TEST_P(GoldenCaduceusFolder, IsWrittenAsTheOriginalWroteItByteForByte) {
  const Model model = Model::load(golden(GetParam()));
  const fs::path folder = directory_ / "model";
  model.save(folder);
  change_tensors(folder, [&](StoredTensors& stored) {
    for (const auto& parameter : tied_parameters(model.config())) {
      EXPECT_EQ(stored.erase(name_in_layout(parameter.name, model.config(), CheckpointLayout::caduceus)), 1U);
    }
  });
  EXPECT_EQ(content_of(folder / "model.safetensors"), content_of(golden(GetParam()) / "model.safetensors"));
  // With its keys, and the complements, in the same order. Residuals are kept in float here, whatever was
  // asked for.
  ordered_json expected = read_config(golden(GetParam()));
  expected["residual_in_fp32"] = true;
  EXPECT_EQ(read_config(folder).dump(1), expected.dump(1));
  const Model again = Model::load(folder);
  EXPECT_EQ(again.config(), model.config());
  EXPECT_EQ(again.fingerprint(), model.fingerprint());
}

/// As in files made from the original's pytorch_model.bin.
TEST_P(GoldenCaduceusFolder, MayHoldTiedTensorsTwice) {
  const fs::path folder = directory_ / "model";
  fs::copy(golden(GetParam()), folder);
  const Model model = Model::load(folder);
  const auto name = [&](const std::string& parameter) {
    return name_in_layout(parameter, model.config(), CheckpointLayout::caduceus);
  };
  change_tensors(folder, [&](StoredTensors& stored) {
    for (const auto& [tied, original] : tied_parameters(model.config()))
      stored[name(tied)] = stored.at(name(original));
  });
  SafetensorsReader file(folder / "model.safetensors");
  EXPECT_TRUE(
      file.tensors().contains(model.config().equivariant ? "lm_head.lm_head.weight" : "lm_head.weight"));
  EXPECT_TRUE(file.tensors().contains(name("backbone.layers.1.mixer.mamba_rev.out_proj.weight")));
  EXPECT_EQ(Model::load(folder).fingerprint(), model.fingerprint());

  const std::string tied = name("backbone.layers.1.mixer.mamba_rev.in_proj.weight");
  change_tensors(folder, [&](StoredTensors& stored) { stored.at(tied).floats[5] += 1; });
  EXPECT_NE(refusal(folder).find(tied), std::string::npos) << refusal(folder);
}

INSTANTIATE_TEST_SUITE_P(Folders, GoldenCaduceusFolder, testing::ValuesIn(kGoldenFolders),
                         [](const auto& instance) { return instance.param; });

TEST(CaduceusFolder, TellsTheKindsOfModelsApart) {
  const ModelConfig ph = Model::load(golden("caduceus_ph_d32_l4")).config();
  EXPECT_EQ(describe(ph), "Caduceus-Ph, bidirectional");
  EXPECT_TRUE(ph.bidirectional() && ph.tie_directions && ph.tie_embeddings && !ph.equivariant);
  EXPECT_EQ(find_mixer(ph.mixer).sweep, Sweep::layer_major);
  const ModelConfig ps = Model::load(golden("caduceus_ps_d32_l4")).config();
  EXPECT_EQ(describe(ps), "Caduceus-PS, bidirectional, reverse-complement equivariant");
  EXPECT_TRUE(ps.bidirectional() && ps.equivariant && ps.exchange_residuals);
  const ModelConfig unfused = Model::load(golden("caduceus_ps_unfused_d32_l3")).config();
  EXPECT_TRUE(unfused.equivariant && !unfused.exchange_residuals);
  EXPECT_EQ(describe(ModelConfig{}), "Mamba, causal");
}

TEST(CaduceusFolder, EveryVariantIsReadBackAsWritten) {
  ModelConfig multiply = bidirectional(), untied = bidirectional(), own_head = bidirectional();
  multiply.combination = Combination::multiply;
  untied.tie_directions = false;
  own_head.tie_embeddings = false;
  ModelConfig unfused = equivariant(), untied_pair = equivariant(), odd = equivariant();
  unfused.exchange_residuals = false;
  untied_pair.tie_directions = false;
  odd.d_state = 8;
  odd.d_conv = 3;
  odd.dt_rank = 5;
  odd.norm_epsilon = 1e-4;
  const TemporaryDirectory directory;
  const fs::path folder = directory / "model";
  std::set<std::string> fingerprints;
  for (const ModelConfig& config :
       {bidirectional(), multiply, untied, own_head, equivariant(), unfused, untied_pair, odd}) {
    Model model(config, 7);
    model.set_classifier({.labels = {"x", "y"}, .window_bases = 512}, 3);
    model.save(folder);
    const Model read = Model::load(folder);
    ModelConfig padded = config;
    padded.vocab_size = 16;  // the original, too, writes the size that it pads to
    EXPECT_EQ(read.config(), padded);
    EXPECT_EQ(read.fingerprint(), model.fingerprint());
    EXPECT_EQ(read.classifier()->labels, model.classifier()->labels);
    EXPECT_TRUE(fingerprints.insert(read.fingerprint()).second);
  }
}

TEST(CaduceusFolder, DirectionsThatAreNotTiedHaveProjectionsOfTheirOwn) {
  ModelConfig config = bidirectional();
  config.tie_directions = false;
  const TemporaryDirectory directory;
  Model(config, 1).save(directory / "model");
  SafetensorsReader file(directory / "model/model.safetensors");
  const std::string layer = "caduceus.backbone.layers.0.mixer.";
  for (const char* name : {"in_proj.weight", "out_proj.weight"}) {
    EXPECT_NE(read_floats(file, layer + "mamba_fwd." + name), read_floats(file, layer + "mamba_rev." + name));
  }
}

TEST(CaduceusFolder, OtherComplementsAreRefused) {
  const TemporaryDirectory directory;
  const fs::path folder = directory / "model";
  const Model model(equivariant(), 1);
  model.save(folder);
  change_tensors(folder, [](StoredTensors& stored) {  // config.json alone will do
    EXPECT_EQ(stored.erase("lm_head.complement_map") + stored.erase(kEmbeddings + "complement_map"), 2U);
  });
  EXPECT_EQ(Model::load(folder).fingerprint(), model.fingerprint());

  model.save(folder);
  change_tensors(folder, [](StoredTensors& stored) {
    std::swap(stored.at("lm_head.complement_map").integers[7],
              stored.at("lm_head.complement_map").integers[8]);
  });
  EXPECT_NE(refusal(folder).find("lm_head.complement_map"), std::string::npos) << refusal(folder);

  model.save(folder);
  const ordered_json map = read_config(folder)["complement_map"];
  for (const auto& change : std::vector<std::function<void(ordered_json&)>>{
           [](ordered_json& changed) { changed["7"] = 7; }, [](ordered_json& changed) { changed.erase("3"); },
           [](ordered_json& changed) { changed = nullptr; }, [](ordered_json& changed) { changed = "AT"; }}) {
    ordered_json changed = map;
    change(changed);
    change_config(folder, "complement_map", changed);
    EXPECT_NE(refusal(folder).find("complement_map"), std::string::npos) << changed << refusal(folder);
  }
  // Further tokens, by which the vocabulary is padded, are their own complements.
  ordered_json unpadded = map;
  for (const char* token : {"12", "13", "14", "15"}) unpadded.erase(token);
  change_config(folder, "complement_map", unpadded);
  EXPECT_EQ(Model::load(folder).fingerprint(), model.fingerprint());
}

TEST(CaduceusFolder, ErrorsNameTensorsAsTheFileDoes) {
  const TemporaryDirectory directory;
  const fs::path folder = directory / "model";
  Model(equivariant(), 1).save(folder);
  const std::string norm = "caduceus.backbone.layers.1.norm.weight";
  change_tensors(folder, [&](StoredTensors& stored) { EXPECT_EQ(stored.erase(norm), 1U); });
  EXPECT_NE(refusal(folder).find(norm + " is missing"), std::string::npos) << refusal(folder);
}

TEST(CaduceusFolder, LayoutsHoldOnlyTheModelsTheyKnow) {
  const TemporaryDirectory directory;
  const fs::path folder = directory / "model";
  for (const auto layout : {CheckpointLayout::state_spaces, CheckpointLayout::hugging_face}) {
    EXPECT_THROW(Model(bidirectional(), 1).save(folder, layout), std::invalid_argument);
  }
  EXPECT_THROW(Model({.d_model = 32}, 1).save(folder, CheckpointLayout::caduceus), std::invalid_argument);
  EXPECT_FALSE(fs::exists(folder));
}

TEST(CaduceusConfig, ContradictionsAreRefused) {
  ModelConfig causal_pair = equivariant(), own_head = equivariant();
  causal_pair.mixer = ModelConfig().mixer;
  own_head.tie_embeddings = false;
  for (const ModelConfig& config : {causal_pair, own_head}) {
    EXPECT_THROW(Model(config, 1), std::invalid_argument);
  }
}

TEST(CaduceusConfig, MissingKeysTakeTheOriginalDefaults) {
  const auto json = nlohmann::json::parse(
      R"({"model_type": "caduceus", "d_model": 64, "n_layer": 3, "vocab_size": 12, "ssm_cfg": null,
          "bidirectional_strategy": null})");
  EXPECT_EQ(parse_config(json), bidirectional({.d_model = 64, .n_layer = 3}));
}

TEST(Model, BothDirectionsStartAsMambaDoes) {
  const Model model(bidirectional({.d_model = 64, .n_layer = 4}), 11);
  const ParameterStore& parameters = model.parameters();
  const std::string mixer = layer_prefix(2) + "mixer.";
  EXPECT_FALSE(parameters.contains(mixer + "mamba_rev.in_proj.weight"));
  EXPECT_FALSE(parameters.contains(mixer + "mamba_rev.out_proj.weight"));
  for (const char* direction : {"mamba_fwd.", "mamba_rev."}) {
    EXPECT_FLOAT_EQ(*parameters.matrix(mixer + direction + "A_log").at(5, 15), std::log(16.0F));
    EXPECT_FLOAT_EQ(parameters.flat(mixer + direction + "D").data[7], 1.0F);
    EXPECT_NE(parameters.flat(mixer + direction + "dt_proj.bias").data[7], 0.0F);
  }
  EXPECT_NE(parameters.flat(mixer + "mamba_fwd.x_proj.weight").data[0],
            parameters.flat(mixer + "mamba_rev.x_proj.weight").data[0]);
  const auto out = span_of(parameters.flat(mixer + "mamba_fwd.out_proj.weight"));
  EXPECT_NEAR(*std::max_element(out.begin(), out.end()), 1 / std::sqrt(128.0) / 2, 1e-3);
}

}  // namespace
}  // namespace longstrand::test
