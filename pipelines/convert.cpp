#include "pipelines/convert.hpp"

#include <filesystem>
#include <map>
#include <ranges>

#include "pipelines/command_line.hpp"
#include "pipelines/logging.hpp"
#include "src/model.hpp"

namespace longstrand::pipelines {
namespace {

const std::map<std::string, CheckpointLayout> kLayouts = {{"state-spaces", CheckpointLayout::state_spaces},
                                                          {"hugging-face", CheckpointLayout::hugging_face},
                                                          {"caduceus", CheckpointLayout::caduceus}};

}  // namespace

void convert(const std::vector<std::string>& arguments) {
  std::string input;
  std::string output;
  std::string layout;
  bool force = false;
  const auto names = std::views::keys(kLayouts);
  CommandLine line(
      "convert", "MODEL --to LAYOUT -o FOLDER",
      "Writes a model's folder in the layout of another program: state-spaces for mamba_ssm, hugging-face\n"
      "for transformers' Mamba, caduceus, the only one for bidirectional models, for Caduceus. Longstrand\n"
      "itself reads all of them. The weights stay the same, bit for bit.");
  line.positional("model", po::value(&input)->required());
  // clang-format off
  line.group("Output").add_options()
      ("to", po::value(&layout)->required()->value_name("LAYOUT")
           ->notifier(one_of("to", {names.begin(), names.end()})), "state-spaces, hugging-face or caduceus")
      ("output,o", po::value(&output)->required()->value_name("FOLDER"), "where the model goes")
      ("force", po::bool_switch(&force), "replace a model that is there");
  // clang-format on
  line.example("longstrand convert run/model --to hugging-face -o run/model-hf");
  if (!line.parse(arguments)) return;
  if (output == "-") throw UsageError("--output -: a model is a folder; give its name");

  const Model model = Model::load(input);
  if (!force && std::filesystem::exists(std::filesystem::path(output) / "config.json")) {
    throw std::runtime_error("'" + output + "' holds a model already: choose another folder or give --force");
  }
  const CheckpointLayout to = kLayouts.at(layout);
  model.save(output, to);
  const double epsilon = model.config().norm_epsilon;
  if (to == CheckpointLayout::state_spaces && epsilon != ModelConfig{}.norm_epsilon) {
    spdlog::warn("the layout has no place for the norm's epsilon: mamba_ssm computes with {}, not with {}",
                 ModelConfig{}.norm_epsilon, epsilon);
  }
  spdlog::info("{} parameters, fingerprint {}, written to '{}'", model.parameter_count(), model.fingerprint(),
               output);
}

}  // namespace longstrand::pipelines
