#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "model_support.hpp"
#include "src/model.hpp"
#include "support/temporary_directory.hpp"

namespace longstrand::test {
namespace {

using nlohmann::json;

void expect_same_weights(const Model& a, const Model& b) {
  for (const ParameterSpec& spec : a.parameters().specs()) {
    const auto left = span_of(a.parameters().flat(spec.name));
    const auto right = span_of(b.parameters().flat(spec.name));
    EXPECT_TRUE(std::equal(left.begin(), left.end(), right.begin(), right.end())) << spec.name;
  }
}

class ModelFolder : public testing::TestWithParam<CheckpointLayout> {
 protected:
  TemporaryDirectory directory_;
};

TEST_P(ModelFolder, IsReadBackAsWritten) {
  for (const bool tied : {true, false}) {
    Model model({.d_model = 40, .n_layer = 2, .d_state = 8, .d_conv = 3, .tie_embeddings = tied}, 7);
    model.set_classifier(
        {.labels = {"x", "y"}, .pooling = Pooling::last, .window_bases = 512, .stride_bases = 256}, 3);
    const std::filesystem::path folder = directory_ / "model";
    model.save(folder, GetParam());
    const Model read = Model::load(folder);
    expect_same_weights(model, read);
    EXPECT_EQ(read.classifier()->labels, model.classifier()->labels);
    EXPECT_EQ(read.classifier()->pooling, Pooling::last);
    EXPECT_EQ(read.classifier()->window_bases, 512);
    EXPECT_EQ(read.config().tie_embeddings, tied);
    EXPECT_EQ(read.config().d_conv, 3);
  }
}

/// The original code loads with strict names: none missing, none left over.
TEST_P(ModelFolder, HoldsExactlyTheTensorsOfItsLayout) {
  Model model({.d_model = 32, .n_layer = 1}, 7);
  model.set_classifier({.labels = {"x", "y"}}, 3);
  const std::filesystem::path folder = directory_ / "model";
  model.save(folder, GetParam());
  SafetensorsReader file(folder / "model.safetensors");
  std::map<std::string, std::vector<std::int64_t>> shapes;
  for (const auto& [name, info] : file.tensors()) shapes[name] = info.shape;
  const std::string embedding = GetParam() == CheckpointLayout::hugging_face ? "backbone.embeddings.weight"
                                                                             : "backbone.embedding.weight";
  const std::string mixer = "backbone.layers.0.mixer.";
  const std::map<std::string, std::vector<std::int64_t>> expected = {{embedding, {16, 32}},
                                                                     {"backbone.layers.0.norm.weight", {32}},
                                                                     {mixer + "in_proj.weight", {128, 32}},
                                                                     {mixer + "conv1d.weight", {64, 1, 4}},
                                                                     {mixer + "conv1d.bias", {64}},
                                                                     {mixer + "x_proj.weight", {34, 64}},
                                                                     {mixer + "dt_proj.weight", {64, 2}},
                                                                     {mixer + "dt_proj.bias", {64}},
                                                                     {mixer + "A_log", {64, 16}},
                                                                     {mixer + "D", {64}},
                                                                     {mixer + "out_proj.weight", {32, 64}},
                                                                     {"backbone.norm_f.weight", {32}},
                                                                     {"lm_head.weight", {16, 32}}};
  EXPECT_EQ(shapes, expected);
}

INSTANTIATE_TEST_SUITE_P(Layouts, ModelFolder,
                         testing::Values(CheckpointLayout::state_spaces, CheckpointLayout::hugging_face),
                         [](const auto& instance) {
                           return instance.param == CheckpointLayout::state_spaces ? "state_spaces"
                                                                                   : "hugging_face";
                         });

/// mamba_ssm passes config.json to a dataclass that knows these keys and no other.
TEST(Config, StateSpacesKeysAreThoseOfMambaConfig) {
  const json object = to_json(ModelConfig{}, CheckpointLayout::state_spaces);
  const std::vector<std::string> known = {"d_model",
                                          "d_intermediate",
                                          "n_layer",
                                          "vocab_size",
                                          "ssm_cfg",
                                          "attn_layer_idx",
                                          "attn_cfg",
                                          "rms_norm",
                                          "residual_in_fp32",
                                          "fused_add_norm",
                                          "pad_vocab_size_multiple",
                                          "tie_embeddings"};
  EXPECT_EQ(object.size(), known.size());
  for (const std::string& key : known) EXPECT_TRUE(object.contains(key)) << key;
  EXPECT_EQ(parse_config(object), ModelConfig{});
}

TEST(Config, MissingKeysTakeTheOriginalDefaults) {
  const ModelConfig config = parse_config(json::parse(R"({"d_model": 64, "n_layer": 3, "vocab_size": 12})"));
  EXPECT_EQ(config.mixer, "Mamba1");
  EXPECT_TRUE(config.tie_embeddings);
  EXPECT_EQ(config.padded_vocab(), 16);
  EXPECT_EQ(config.dt_rank_or_auto(), 4);
}

TEST(Config, WhatCannotRunIsRefusedByName) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {R"([])", "object"},
      {R"({"n_layer": 3, "vocab_size": 12})", "d_model"},
      {R"({"d_model": "64", "n_layer": 3, "vocab_size": 12})", "d_model"},
      {R"({"d_model": 64, "n_layer": -3, "vocab_size": 12})", "n_layer"},
      {R"({"d_model": 64, "n_layer": 3, "vocab_size": 50280})", "vocab_size"},
      {R"({"d_model": 64, "n_layer": 3, "vocab_size": 12, "rms_norm": false})", "rms_norm"},
      {R"({"d_model": 64, "n_layer": 3, "vocab_size": 12, "attn_layer_idx": [1]})", "attn_layer_idx"},
      {R"({"d_model": 64, "n_layer": 3, "vocab_size": 12, "ssm_cfg": {"bias": true}})", "bias"},
      {R"({"d_model": 64, "n_layer": 3, "vocab_size": 12, "ssm_cfg": {"d_state": 0}})", "d_state"},
      {R"({"model_type": "bert", "d_model": 64, "n_layer": 3, "vocab_size": 12})", "bert"},
      {R"({"model_type": "caduceus", "d_model": 64, "n_layer": 3, "vocab_size": 12, "bidirectional": false})",
       "\"bidirectional\""},
      {R"({"model_type": "caduceus", "d_model": 64, "n_layer": 3, "vocab_size": 12, "bidirectional_strategy": "max"})",
       "bidirectional_strategy"},
      {R"({"model_type": "caduceus", "d_model": 64, "n_layer": 3, "vocab_size": 12, "norm_epsilon": 2})",
       "norm_epsilon"},
      {R"({"model_type": "caduceus", "d_model": 64, "n_layer": 3, "vocab_size": 12, "rcps": true})",
       "complement_map"},
      {R"({"d_model": 64, "n_layer": 3, "vocab_size": 12, "ssm_cfg": {"layer": "BiMamba1"}})", "caduceus"},
      {R"({"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 16, "use_bias": true})",
       "use_bias"},
      {R"({"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 16, "hidden_act": "gelu"})",
       "hidden_act"},
      {R"({"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 16,
           "layer_norm_epsilon": -1})",
       "layer_norm_epsilon"},
  };
  for (const auto& [text, named] : cases) {
    try {
      parse_config(json::parse(text));
      ADD_FAILURE() << text;
    } catch (const std::runtime_error& error) {
      EXPECT_NE(std::string(error.what()).find(named), std::string::npos) << error.what();
    }
  }
}

TEST(ModelFolderErrors, NameTheFileAndWhatIsWrong) {
  TemporaryDirectory directory;
  const std::filesystem::path folder = directory / "model";
  const auto message = [&] {
    try {
      Model::load(folder);
    } catch (const std::runtime_error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_NE(message().find("no config.json"), std::string::npos);
  Model({.d_model = 16, .n_layer = 1}, 1).save(folder);
  std::ofstream(folder / "config.json") << R"({"d_model": 16, "n_layer": 2, "vocab_size": 12})";
  EXPECT_NE(message().find("backbone.layers.1"), std::string::npos) << message();
  std::ofstream(folder / "config.json") << R"({"d_model": 24, "n_layer": 1, "vocab_size": 12})";
  EXPECT_NE(message().find("expected shape"), std::string::npos) << message();
  std::ofstream(folder / "config.json") << "{";
  EXPECT_NE(message().find("config.json: not valid JSON"), std::string::npos) << message();
  std::ofstream(folder / "config.json")
      << R"({"d_model": 16, "n_layer": 1, "vocab_size": 12, "ssm_cfg": {"layer": "Mamba2"}})";
  EXPECT_NE(message().find("Mamba2"), std::string::npos) << message();
  std::filesystem::rename(folder / "model.safetensors", folder / "pytorch_model.bin");
  EXPECT_NE(message().find("safetensors.torch"), std::string::npos) << message();
}

/// One model, however its folder spells it, has one fingerprint; another epsilon makes another model.
TEST(Model, FingerprintSurvivesEveryLayout) {
  TemporaryDirectory directory;
  ModelConfig config{.d_model = 16, .n_layer = 1, .norm_epsilon = 1e-3};
  const Model model(config, 1);
  for (const auto layout : {CheckpointLayout::state_spaces, CheckpointLayout::hugging_face}) {
    const std::filesystem::path folder = directory / "model";
    model.save(folder, layout);
    const Model read = Model::load(folder);
    EXPECT_DOUBLE_EQ(read.config().norm_epsilon, 1e-3);
    EXPECT_EQ(read.fingerprint(), model.fingerprint());
  }
  config.norm_epsilon = 1e-5;
  EXPECT_NE(Model(config, 1).fingerprint(), model.fingerprint());
}

TEST(ModelFolderErrors, AWeightThatIsNoNumberIsRefused) {
  const TemporaryDirectory directory;
  for (const float value : {std::nanf(""), -INFINITY}) {
    Model model({.d_model = 16, .n_layer = 1}, 7);
    model.parameters().flat("backbone.layers.0.mixer.D").data[3] = value;
    model.save(directory / "model");
    try {
      Model::load(directory / "model");
      FAIL() << "no error";
    } catch (const std::runtime_error& error) {
      EXPECT_NE(
          std::string(error.what()).find("model.safetensors: tensor backbone.layers.0.mixer.D: holds NaN"),
          std::string::npos)
          << error.what();
    }
  }
}

TEST(Model, LeavesNoHeadOfTheModelThatWasThere) {
  const TemporaryDirectory directory;
  const std::filesystem::path folder = directory / "model";
  Model model({.d_model = 16, .n_layer = 1}, 7);
  model.set_classifier({.labels = {"x", "y"}}, 3);
  model.save(folder);
  EXPECT_TRUE(std::filesystem::exists(folder / "head.safetensors"));
  Model({.d_model = 16, .n_layer = 1}, 7).save(folder);
  EXPECT_FALSE(std::filesystem::exists(folder / "head.safetensors"));
}

TEST(ModelFolderErrors, AnAlphabetThatDoesNotFitIsRefused) {
  TemporaryDirectory directory;
  const std::filesystem::path folder = directory / "model";
  Model({.d_model = 16, .n_layer = 1, .vocab_size = 8}, 1).save(folder);
  EXPECT_THROW(Model::load(folder), std::runtime_error);
}

/// config.json alone must not decide how much memory is taken.
TEST(ModelFolderErrors, AHugeConfigOverASmallFileIsRefusedAtOnce) {
  TemporaryDirectory directory;
  const std::filesystem::path folder = directory / "model";
  Model({.d_model = 16, .n_layer = 1}, 1).save(folder);
  std::ofstream(folder / "config.json") << R"({"d_model": 65536, "n_layer": 4000, "vocab_size": 12})";
  EXPECT_THROW(Model::load(folder), std::runtime_error);
}

TEST(Model, StartsAsTheOriginalDoes) {
  const Model model({.d_model = 64, .n_layer = 4}, 11);
  const std::string mixer = layer_prefix(2) + "mixer.";
  const auto a_log = model.parameters().matrix(mixer + "A_log");
  EXPECT_FLOAT_EQ(*a_log.at(5, 0), 0.0F);
  EXPECT_FLOAT_EQ(a_log.at(5)[15], std::log(16.0F));
  const std::span<const float> biases = span_of(model.parameters().flat(mixer + "dt_proj.bias"));
  for (const float bias : biases) {
    const double step = std::log1p(std::exp(static_cast<double>(bias)));
    EXPECT_GT(step, 0.99e-3);
    EXPECT_LT(step, 0.101);
  }
  const auto largest = [&](const std::string& name) {
    const auto values = span_of(model.parameters().flat(mixer + name));
    return std::max(*std::max_element(values.begin(), values.end()),
                    -*std::min_element(values.begin(), values.end()));
  };
  EXPECT_NEAR(largest("in_proj.weight"), 1 / 8.0, 1e-3);
  EXPECT_NEAR(largest("out_proj.weight"), 1 / std::sqrt(128.0) / 2, 1e-3);
  EXPECT_NEAR(largest("dt_proj.weight"), 1 / 2.0, 2e-2);
  EXPECT_NE(Model({.d_model = 64, .n_layer = 4}, 12).fingerprint(), model.fingerprint());
  EXPECT_EQ(Model({.d_model = 64, .n_layer = 4}, 11).fingerprint(), model.fingerprint());
}

}  // namespace
}  // namespace longstrand::test
