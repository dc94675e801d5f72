#include "pipelines/pretrain.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <optional>

#include "pipelines/command_line.hpp"
#include "pipelines/input_options.hpp"
#include "pipelines/logging.hpp"
#include "pipelines/training_data.hpp"
#include "pipelines/training_options.hpp"
#include "pipelines/window_sampler.hpp"

namespace longstrand::pipelines {
namespace {

struct PretrainOptions {
  InputOptions input;
  TrainingOptions training;
  std::string objective;
  std::string init;
  std::int64_t d_model = 0;
  std::int64_t layers = 0;
  std::int64_t d_state = 0;
  std::string context;
  std::int64_t batch_tokens = 0;
  std::string order;
  std::vector<std::string> valid;
  std::int64_t valid_tokens = 0;

  void add_to(CommandLine& line);
  std::int64_t context_bases() const;  // 0: whole records
};

void PretrainOptions::add_to(CommandLine& line) {
  input.add_to(line);
  // clang-format off
  line.group("Model").add_options()
      ("objective", po::value(&objective)->default_value("clm")->value_name("NAME")
           ->notifier(one_of("objective", {"clm", "mlm"})), "clm: the next base given all before it")
      ("init", po::value(&init)->value_name("MODEL"), "begin with the weights of this model")
      ("d-model", po::value(&d_model)->default_value(128)->value_name("N")
           ->notifier(in_range<std::int64_t>("d-model", 1, 1 << 16)), "width")
      ("layers", po::value(&layers)->default_value(4)->value_name("N")
           ->notifier(in_range<std::int64_t>("layers", 1, 1 << 10)), "depth")
      ("d-state", po::value(&d_state)->default_value(16)->value_name("N")
           ->notifier(in_range<std::int64_t>("d-state", 1, 1 << 10)), "states per channel");
  line.group("Data").add_options()
      ("context", po::value(&context)->default_value("4096")->value_name("BASES"),
           "bases of a training sequence; record: whole records, of any length")
      ("batch-tokens", po::value(&batch_tokens)->default_value(1 << 16)->value_name("N")
           ->notifier(at_least<std::int64_t>("batch-tokens", 1)),
           "tokens of a step: as many sequences as come nearest, at least one")
      ("order", po::value(&order)->default_value("shuffle")->value_name("HOW")
           ->notifier(one_of("order", {"shuffle", "sequential"})), "shuffle or sequential")
      ("valid", po::value(&valid)->value_name("FILE"),
           "validation data, in place of a part of the input; may be repeated")
      ("valid-tokens", po::value(&valid_tokens)->default_value(1 << 18)->value_name("N")
           ->notifier(at_least<std::int64_t>("valid-tokens", 1)), "how much of the validation data to use each time");
  // clang-format on
  training.add_to(line, {.learning_rate = 8e-3, .epochs = 1, .valid_fraction = 0.02});
  line.example("longstrand pretrain data/genomes/*.fa.gz -o run --context 4096 --steps 200");
  line.example("longstrand pretrain --config run/config.ini -o run --resume");
}

std::int64_t PretrainOptions::context_bases() const {
  if (context == "record") return 0;
  std::int64_t bases = 0;
  const char* const end = context.data() + context.size();
  const auto [rest, error] = std::from_chars(context.data(), end, bases);
  if (error != std::errc() || rest != end || bases < 2) {
    throw UsageError(fmt::format("--context '{}': expected a number of bases from 2, or record", context));
  }
  return bases;
}

// Before anything is written: what is wrong with the options themselves.
void check_usage(const CommandLine& line, const PretrainOptions& options) {
  options.context_bases();
  options.training.check(line);
  if (options.objective == "mlm") throw UsageError("--objective mlm is not in this version");
  for (const auto& valid : options.valid) {
    for (const auto& input : options.input.paths) {
      if (std::filesystem::weakly_canonical(valid) != std::filesystem::weakly_canonical(input)) continue;
      throw UsageError(fmt::format("--valid '{}' is an input too: it would be trained on", valid));
    }
  }
  if (options.init.empty()) return;
  for (const char* name : {"d-model", "layers", "d-state"}) {
    if (line.given(name))
      throw UsageError(fmt::format("--{}: the model of --init decides it; leave it out", name));
  }
}

TokenStore training_data(const RunFolder& run, const PretrainOptions& options, const CommonOptions& common) {
  std::vector<TrainingInput> inputs;
  for (const auto& path : options.input.paths) inputs.push_back({.path = path});
  if (!options.valid.empty()) {
    for (auto& input : inputs) input.split = Split::train;
    for (const auto& path : options.valid) inputs.push_back({.path = path, .split = Split::valid});
  }
  const TrainingDataOptions data{.windows = {.window = options.context_bases()},
                                 .split = {.valid = options.training.valid_fraction, .seed = common.seed},
                                 .source = options.input.reading.source_options(common),
                                 .ambiguous = options.input.reading.ambiguous_policy()};
  if (options.training.resume) {
    if (auto found = find_training_data(run.file("data"), inputs, data)) return std::move(*found);
  }
  return make_training_data(run.file("data"), inputs, data);
}

Model initial_model(const RunFolder& run, std::optional<Model> init, const PretrainOptions& options,
                    std::uint64_t seed) {
  if (run.has_state()) return run.load_model();
  if (init) return std::move(*init);
  ModelConfig config;
  config.d_model = options.d_model;
  config.n_layer = options.layers;
  config.d_state = options.d_state;
  return Model(config, seed);
}

void report_data(const TokenStore& store, std::int64_t batch) {
  spdlog::info("{} training windows of {} bases, {} sequences a step; {} validation windows of {} bases",
               store.window_count(Split::train), store.window_tokens(Split::train), batch,
               store.window_count(Split::valid), store.window_tokens(Split::valid));
  if (store.window_count(Split::valid) == 0) {
    spdlog::warn("there is no validation data: no validation, and no best/; see --valid, --valid-fraction");
  }
}

// How many windows of average length come nearest to `tokens`; at least one.
std::int64_t windows_in(const TokenStore& store, Split split, std::int64_t tokens) {
  const auto windows = static_cast<double>(store.window_count(split));
  const auto all_tokens = static_cast<double>(std::max<std::int64_t>(store.window_tokens(split), 1));
  return std::max<std::int64_t>(1, std::llround(static_cast<double>(tokens) * windows / all_tokens));
}

}  // namespace

void pretrain(const std::vector<std::string>& arguments) {
  CommandLine line(
      "pretrain", "INPUT... -o RUN [options]",
      "Trains a language model on sequences: the next base given all before it, with exact gradients for\n"
      "sequences of any length. Stopped or killed, it goes on where it was with --resume.");
  PretrainOptions options;
  options.add_to(line);
  if (!line.parse(arguments)) return;
  check_usage(line, options);
  const auto execution = line.execution();
  const std::uint64_t seed = line.common().seed;

  // First of all, so that a wrong name leaves nothing behind.
  std::optional<Model> init;
  if (!options.init.empty()) init = Model::load(options.init);
  RunFolder run(options.training.output, options.training.start());
  const TokenStore store = training_data(run, options, line.common());
  const std::int64_t batch = windows_in(store, Split::train, options.batch_tokens);
  report_data(store, batch);
  const WindowSampler sampler(store,
                              {.batch = batch,
                               .order = options.order == "shuffle" ? Order::shuffle : Order::sequential,
                               .seed = seed,
                               .move_windows = true,
                               .reverse_complement = options.training.reverse_complement});

  auto plan = options.training.plan("pretrain", options.training.steps_for(sampler.steps_per_epoch()));
  plan.batch = [&](std::int64_t step) { return sampler.batch(step); };
  plan.validation = validation_sequences(store, windows_in(store, Split::valid, options.valid_tokens));
  run.settle_config(options.training.config(line, plan.learning_rate, execution.options.precision));

  Model model = initial_model(run, std::move(init), options, seed);
  Trainer trainer(model, execution.options, {.optimizer = options.training.optimizer()});
  spdlog::info("{} parameters, {} steps", model.parameter_count(), plan.learning_rate.steps);
  run_training(plan, run, model, trainer);
}

}  // namespace longstrand::pipelines
