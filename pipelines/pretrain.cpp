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
#include "pipelines/model_options.hpp"
#include "pipelines/training_data.hpp"
#include "pipelines/training_options.hpp"
#include "pipelines/window_sampler.hpp"
#include "src/masking.hpp"

namespace longstrand::pipelines {
namespace {

struct PretrainOptions {
  InputOptions input;
  TrainingOptions training;
  ModelOptions model;
  std::string objective;
  double mask_fraction = 0;
  std::string init;
  std::string context;
  std::int64_t batch_tokens = 0;
  std::string order;
  std::vector<std::string> valid;
  std::int64_t valid_tokens = 0;

  void add_to(CommandLine& line);
  std::int64_t context_bases() const;  // 0: whole records
  bool masks() const { return objective == "mlm"; }
};

void PretrainOptions::add_to(CommandLine& line) {
  input.add_to(line);
  // clang-format off
  line.group("Model").add_options()
      ("objective", po::value(&objective)->default_value("clm")->value_name("NAME")
           ->notifier(one_of("objective", {"clm", "mlm"})),
           "clm: the next base given all before it; mlm: masked bases given all others, for --bidirectional")
      ("mask-fraction", with_default(mask_fraction, MaskRule{}.share)->value_name("F")
           ->notifier(in_range<double>("mask-fraction", 0.001, 1)), "mlm: share of the bases that are asked for")
      ("init", po::value(&init)->value_name("MODEL"), "begin with the weights of this model");
  // clang-format on
  model.add_to(line, "Model", {.d_model = 128, .n_layer = 4});
  // clang-format off
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
  line.example(
      "longstrand pretrain data/genomes/*.fa.gz -o run --objective mlm --bidirectional --rc equivariant");
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
  options.model.check();
  for (const auto& valid : options.valid) {
    for (const auto& input : options.input.paths) {
      if (std::filesystem::weakly_canonical(valid) != std::filesystem::weakly_canonical(input)) continue;
      throw UsageError(fmt::format("--valid '{}' is an input too: it would be trained on", valid));
    }
  }
  if (!options.init.empty()) options.model.check_left_to_init(line);
}

// ... and with the model that is to be trained.
void check_usage(const ModelConfig& model, const PretrainOptions& options) {
  if (options.masks() && !model.bidirectional()) {
    throw UsageError(
        "--objective mlm needs a bidirectional model (--bidirectional, or such a model to --init): a causal "
        "one does not see what is behind a masked base");
  }
  if (!options.masks() && model.bidirectional()) {
    throw UsageError(
        "a bidirectional model needs --objective mlm: it sees the base that it would predict by clm");
  }
  options.training.check(model);
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
      "Trains a language model on sequences: the next base given all before it, or masked bases given all\n"
      "others, with exact gradients for sequences of any length. Stopped or killed, it goes on where it was\n"
      "with --resume.");
  PretrainOptions options;
  options.add_to(line);
  if (!line.parse(arguments)) return;
  options.training.reverse_complement |= options.model.augments();
  check_usage(line, options);
  const auto execution = line.execution();
  const std::uint64_t seed = line.common().seed;

  // First of all, so that a wrong name leaves nothing behind.
  std::optional<Model> model;
  if (!options.init.empty()) model = Model::load(options.init);
  check_usage(model ? model->config() : options.model.config(), options);
  RunFolder run(options.training.output, options.training.start());
  const TokenStore store = training_data(run, options, line.common());
  const std::int64_t batch = windows_in(store, Split::train, options.batch_tokens);
  report_data(store, batch);
  const WindowSampler sampler(store,
                              {.batch = batch,
                               .order = options.order == "shuffle" ? Order::shuffle : Order::sequential,
                               .seed = seed,
                               .move_windows = true,
                               .reverse_complement = options.training.reverse_complement,
                               .masked = options.masks() ? options.mask_fraction : 0});

  auto plan = options.training.plan("pretrain", options.training.steps_for(sampler.steps_per_epoch()));
  plan.batch = [&](std::int64_t step) { return sampler.batch(step); };
  plan.validation = sampler.validation(windows_in(store, Split::valid, options.valid_tokens));
  run.settle_config(options.training.config(line, plan.learning_rate, execution.options.precision));

  if (run.has_state()) model = run.load_model();
  if (!model) model.emplace(options.model.config(), seed);
  Trainer trainer(*model, execution.options,
                  {.objective = options.masks() ? Objective::masked_token : Objective::next_token,
                   .optimizer = options.training.optimizer()});
  spdlog::info("{}: {} parameters, {} steps", describe(model->config()), model->parameter_count(),
               plan.learning_rate.steps);
  run_training(plan, run, *model, trainer);
}

}  // namespace longstrand::pipelines
