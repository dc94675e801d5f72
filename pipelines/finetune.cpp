#include "pipelines/finetune.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>

#include "io/input_error.hpp"
#include "pipelines/command_line.hpp"
#include "pipelines/input_options.hpp"
#include "pipelines/logging.hpp"
#include "pipelines/manifest.hpp"
#include "pipelines/training_data.hpp"
#include "pipelines/training_options.hpp"
#include "pipelines/window_sampler.hpp"

namespace longstrand::pipelines {
namespace {

struct FinetuneOptions {
  TrainingOptions training;
  std::string init;
  std::string labels;
  std::string pooling;
  bool freeze_backbone = false;
  std::string window;
  std::int64_t stride = 0;
  std::int64_t batch = 0;
  double holdout = 0;
  std::int64_t valid_windows = 0;
  ReadingOptions reading;

  void add_to(CommandLine& line);
  WindowRule windows() const;
  TrainingDataOptions data(const CommonOptions& common) const;
};

void FinetuneOptions::add_to(CommandLine& line) {
  // clang-format off
  line.group("Model").add_options()
      ("init", po::value(&init)->required()->value_name("MODEL"), "model to begin with; gets a new classifier head")
      ("pool", po::value(&pooling)->default_value("mean")->value_name("HOW")
           ->notifier(one_of("pool", {"mean", "last"})), "what the head sees of a sequence: mean or last")
      ("freeze-backbone", po::bool_switch(&freeze_backbone), "train the head alone");
  line.group("Data").add_options()
      ("labels", po::value(&labels)->required()->value_name("MANIFEST.tsv"),
           "header path, label and, to say what is for training, split (train, valid, test); paths relative to it; "
           "lines that begin with # are comments")
      ("window", po::value(&window)->default_value("4096")->value_name("BASES"),
           "bases of a training sequence; record: whole records")
      ("stride", po::value(&stride)->default_value(0, "window")->value_name("BASES")
           ->notifier(at_least<std::int64_t>("stride", 0)), "between the starts of neighbouring windows")
      ("batch", po::value(&batch)->default_value(16)->value_name("N")
           ->notifier(in_range<std::int64_t>("batch", 1, 1 << 20)), "sequences of a step; classes take turns")
      ("holdout", with_default(holdout, 0.2)->value_name("F")
           ->notifier(in_range<double>("holdout", 0, 0.9)),
           "kept from training and listed as test in RUN/split.tsv, where the manifest has no split: the end of every "
           "record, or of short records so many as a whole")
      ("valid-windows", po::value(&valid_windows)->default_value(512)->value_name("N")
           ->notifier(at_least<std::int64_t>("valid-windows", 1)), "how many validation windows to use each time");
  // clang-format on
  reading.add_to(line, "Data");
  training.add_to(line, {.learning_rate = 1e-3, .epochs = 3, .valid_fraction = 0.1});
  line.example("longstrand finetune --init run/best --labels data/species.tsv -o species --window 4096");
}

WindowRule FinetuneOptions::windows() const {
  if (window == "record") return {};
  WindowRule rule{.stride = stride};
  const char* const end = window.data() + window.size();
  const auto [rest, error] = std::from_chars(window.data(), end, rule.window);
  if (error != std::errc() || rest != end || rule.window < 0) {
    throw UsageError(fmt::format("--window '{}': expected a number of bases, or record", window));
  }
  return rule;
}

TrainingDataOptions FinetuneOptions::data(const CommonOptions& common) const {
  return {.windows = windows(),
          .split = {.valid = training.valid_fraction * (1 - holdout), .test = holdout, .seed = common.seed},
          .source = reading.source_options(common),
          .ambiguous = reading.ambiguous_policy()};
}

std::vector<TrainingInput> inputs_of(const Manifest& manifest) {
  std::vector<TrainingInput> inputs;
  for (const auto& entry : manifest.entries) {
    inputs.push_back({.path = entry.path, .label = manifest.class_of(entry.label), .split = entry.split});
  }
  return inputs;
}

TokenStore training_data(const RunFolder& run, const FinetuneOptions& options, const Manifest& manifest,
                         const CommonOptions& common) {
  const auto inputs = inputs_of(manifest);
  const auto data = options.data(common);
  // split.tsv is completed after the store: without it the run was killed in between.
  if (options.training.resume && std::filesystem::exists(run.file("split.tsv"))) {
    if (auto found = find_training_data(run.file("data"), inputs, data)) return std::move(*found);
  }
  SplitWriter split(run.file("split.tsv"));
  auto store = make_training_data(run.file("data"), inputs, data, [&](const LaidWindow& window) {
    split.write({.path = std::filesystem::absolute(window.input.path).lexically_normal().string(),
                 .record = window.record,
                 .record_index = window.record_index,
                 .start = window.place.begin,
                 .end = window.place.end,
                 .label = manifest.labels[static_cast<std::size_t>(window.input.label)],
                 .split = window.split});
  });
  split.commit();
  return store;
}

Model initial_model(const RunFolder& run, std::optional<Model> init, const FinetuneOptions& options,
                    const Manifest& manifest, std::uint64_t seed) {
  if (!init) return run.load_model();
  Model model = std::move(*init);
  const auto rule = options.windows();
  model.set_classifier({.labels = manifest.labels,
                        .pooling = parse_pooling(options.pooling),
                        .window_bases = rule.window,
                        .stride_bases = rule.stride > 0 ? rule.stride : rule.window},
                       seed);
  return model;
}

Manifest read_classes(const std::string& path) {
  auto manifest = read_manifest(path);
  if (manifest.labels.size() < 2) {
    throw io::InputError(fmt::format("'{}' has one label only, '{}': a classifier needs two or more", path,
                                     manifest.labels[0]));
  }
  return manifest;
}

void report_data(const TokenStore& store, const Manifest& manifest) {
  spdlog::info("{} classes: {}", manifest.labels.size(), fmt::join(manifest.labels, ", "));
  spdlog::info("{} training and {} validation windows", store.window_count(Split::train),
               store.window_count(Split::valid));
  if (store.window_count(Split::valid) == 0) {
    spdlog::warn("there is no validation data: no validation, and no best/; see --valid-fraction");
  }
}

}  // namespace

void finetune(const std::vector<std::string>& arguments) {
  CommandLine line(
      "finetune", "--init MODEL --labels MANIFEST.tsv -o RUN [options]",
      "Trains a classifier of sequences: the model and a new head, or the head alone. The labels are kept "
      "in\n"
      "the model. RUN/split.tsv says which windows were trained on and which were held out. Stopped or\n"
      "killed, it goes on where it was with --resume.");
  FinetuneOptions options;
  options.add_to(line);
  if (!line.parse(arguments)) return;
  options.windows();
  options.training.check(line);
  const auto execution = line.execution();
  const std::uint64_t seed = line.common().seed;
  const Manifest manifest = read_classes(options.labels);

  // First of all, so that a wrong name leaves nothing behind; to resume takes none.
  std::optional<Model> init;
  if (!options.training.resume || !RunFolder::has_state(options.training.output))
    init = Model::load(options.init);
  if (init) options.training.check(init->config());
  RunFolder run(options.training.output, options.training.start());
  Model model = initial_model(run, std::move(init), options, manifest, seed);
  const TokenStore store = training_data(run, options, manifest, line.common());
  report_data(store, manifest);
  const WindowSampler sampler(store, {.batch = options.batch,
                                      .seed = seed,
                                      .move_windows = true,
                                      .reverse_complement = options.training.reverse_complement,
                                      .classes = manifest.labels});

  auto plan = options.training.plan("finetune", options.training.steps_for(sampler.steps_per_epoch()));
  plan.classifies = true;
  plan.batch = [&](std::int64_t step) { return sampler.batch(step); };
  plan.validation = sampler.validation(options.valid_windows);
  run.settle_config(options.training.config(line, plan.learning_rate, execution.options.precision));

  Trainer trainer(model, execution.options,
                  {.objective = Objective::classification,
                   .optimizer = options.training.optimizer(),
                   .freeze_backbone = options.freeze_backbone});
  run_training(plan, run, model, trainer);
}

}  // namespace longstrand::pipelines
