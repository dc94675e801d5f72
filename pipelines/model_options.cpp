#include "pipelines/model_options.hpp"

#include <fmt/format.h>

namespace longstrand::pipelines {

void ModelOptions::add_to(CommandLine& line, const std::string& heading, const ModelConfig& defaults) {
  // clang-format off
  line.group(heading).add_options()
      ("d-model", po::value(&d_model)->default_value(defaults.d_model)->value_name("N")
           ->notifier(in_range<std::int64_t>("d-model", 1, 1 << 16)), "width")
      ("layers", po::value(&layers)->default_value(defaults.n_layer)->value_name("N")
           ->notifier(in_range<std::int64_t>("layers", 1, 1 << 10)), "depth")
      ("d-state", po::value(&d_state)->default_value(defaults.d_state)->value_name("N")
           ->notifier(in_range<std::int64_t>("d-state", 1, 1 << 10)), "states per channel")
      ("bidirectional", po::bool_switch(&bidirectional),
           "every layer reads a sequence from left to right and from right to left: a Caduceus model")
      ("rc", po::value(&rc)->default_value("none")->value_name("HOW")
           ->notifier(one_of("rc", {"none", "augment", "equivariant"})),
           "none: sequences are read as they are; augment: half of them as their reverse complement; equivariant: the "
           "model (Caduceus-PS) gives a sequence and its reverse complement the same result");
  // clang-format on
}

void ModelOptions::check() const {
  if (equivariant() && !bidirectional) throw UsageError("--rc equivariant needs --bidirectional");
}

void ModelOptions::check_left_to_init(const CommandLine& line) const {
  const auto refuse = [](const std::string& option) {
    throw UsageError(fmt::format("--{}: the model of --init decides it; leave it out", option));
  };
  for (const char* name : {"d-model", "layers", "d-state"}) {
    if (line.typed(name)) refuse(name);
  }
  if (bidirectional) refuse("bidirectional");
  if (equivariant()) refuse("rc equivariant");
}

ModelConfig ModelOptions::config() const {
  ModelConfig config{.d_model = d_model, .n_layer = layers, .d_state = d_state};
  if (bidirectional) config.mixer = kBidirectionalMixer;
  config.equivariant = equivariant();
  return config;
}

}  // namespace longstrand::pipelines
