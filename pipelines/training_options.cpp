#include "pipelines/training_options.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace longstrand::pipelines {
namespace {

constexpr double kLeastShare = 0.1;   // of the learning rate, at the end of the cosine
constexpr double kWarmupShare = 0.1;  // of the steps

}  // namespace

void TrainingOptions::add_to(CommandLine& line, const TrainingDefaults& defaults) {
  // clang-format off
  line.group("Run").add_options()
      ("output,o", po::value(&output)->required()->value_name("RUN"), "folder of the run")
      ("resume", po::bool_switch(&resume), "go on after the last save; begins the run if there is none")
      ("force", po::bool_switch(&force), "remove the run that is in the folder")
      ("save-every", po::value(&save_every)->default_value(100)->value_name("STEPS")
           ->notifier(at_least<std::int64_t>("save-every", 1)), "save model and trainer state")
      ("valid-every", po::value(&valid_every)->default_value(100)->value_name("STEPS")
           ->notifier(at_least<std::int64_t>("valid-every", 1)), "validate, and keep the best model");
  line.group("Optimisation").add_options()
      ("steps", po::value(&steps)->default_value(0, "by --epochs")->value_name("N")
           ->notifier(at_least<std::int64_t>("steps", 0)), "length of the run")
      ("epochs", with_default(epochs, defaults.epochs)->value_name("X")
           ->notifier(at_least<double>("epochs", 0)), "length of the run, where --steps does not say it")
      ("lr", with_default(learning_rate, defaults.learning_rate)->value_name("X")
           ->notifier(at_least<double>("lr", 0)), "learning rate at its peak")
      ("min-lr", po::value(&least_learning_rate)->default_value(-1, "a tenth of --lr")->value_name("X"),
           "learning rate at the end")
      ("warmup-steps", po::value(&warmup_steps)->default_value(-1, "a tenth")->value_name("N"),
           "steps until the learning rate is at its peak")
      ("schedule", po::value(&schedule)->default_value("cosine")->value_name("HOW")
           ->notifier(one_of("schedule", {"cosine", "constant"})), "of the learning rate after that: cosine, constant")
      ("weight-decay", with_default(weight_decay, 0.1)->value_name("X")
           ->notifier(at_least<double>("weight-decay", 0)), "not on A, D, biases and norms")
      ("betas", po::value(&betas)->default_value("0.9,0.95")->value_name("X,Y"), "of AdamW")
      ("clip-norm", with_default(clip_norm, 1.0)->value_name("X")
           ->notifier(at_least<double>("clip-norm", 0)), "largest norm of the gradient; 0: no limit");
  line.group("Data").add_options()
      ("valid-fraction", with_default(valid_fraction, defaults.valid_fraction)->value_name("F")
           ->notifier(in_range<double>("valid-fraction", 0, 0.9)),
           "validation data: the end of every record, or of short records so many as a whole")
      ("reverse-complement-augment", po::bool_switch(&reverse_complement),
           "read half of the sequences as their reverse complement");
  // clang-format on
}

void TrainingOptions::check(const CommandLine& line) const {
  if (resume && force) throw UsageError("--resume and --force exclude each other");
  // These stand for defaults, but not where the user says so.
  if (line.given("steps")) at_least<std::int64_t>("steps", 1)(steps);
  if (line.given("min-lr")) at_least<double>("min-lr", 0)(least_learning_rate);
  if (line.given("warmup-steps")) at_least<std::int64_t>("warmup-steps", 0)(warmup_steps);
  if (epochs == 0) throw UsageError("--epochs 0: there is nothing to train; expected more than 0, as in 0.5");
  optimizer();
  line.config();  // throws for what the run's config.ini could not hold
}

void TrainingOptions::check(const ModelConfig& model) const {
  if (!model.equivariant || !reverse_complement) return;
  throw UsageError(
      "--reverse-complement-augment: an equivariant model reads both strands anyway; leave it out");
}

RunStart TrainingOptions::start() const {
  return resume ? RunStart::resume : force ? RunStart::overwrite : RunStart::fresh;
}

OptimizerOptions TrainingOptions::optimizer() const {
  OptimizerOptions options{.weight_decay = weight_decay, .clip_norm = clip_norm};
  const char* const end = betas.data() + betas.size();
  const auto first = std::from_chars(betas.data(), end, options.beta1);
  const bool comma = first.ec == std::errc() && first.ptr != end && *first.ptr == ',';
  const auto second = comma ? std::from_chars(first.ptr + 1, end, options.beta2) : first;
  const auto proper = [](double beta) { return beta >= 0 && beta < 1; };
  if (!comma || second.ec != std::errc() || second.ptr != end || !proper(options.beta1) ||
      !proper(options.beta2)) {
    throw UsageError(fmt::format("--betas '{}': expected two numbers in [0, 1), as in 0.9,0.95", betas));
  }
  return options;
}

std::int64_t TrainingOptions::steps_for(std::int64_t steps_per_epoch) const {
  if (steps > 0) return steps;
  return std::max<std::int64_t>(1, std::llround(std::ceil(epochs * static_cast<double>(steps_per_epoch))));
}

LearningRate TrainingOptions::schedule_over(std::int64_t total_steps) const {
  const auto share = static_cast<std::int64_t>(kWarmupShare * static_cast<double>(total_steps));
  return {.peak = learning_rate,
          .floor = least_learning_rate < 0 ? kLeastShare * learning_rate : least_learning_rate,
          .warmup_steps = warmup_steps < 0 ? share : warmup_steps,
          .steps = total_steps,
          .decay = schedule == "cosine" ? Decay::cosine : Decay::constant};
}

TrainingPlan TrainingOptions::plan(std::string name, std::int64_t total_steps) const {
  TrainingPlan plan;
  plan.name = std::move(name);
  plan.learning_rate = schedule_over(total_steps);
  plan.save_every = save_every;
  plan.valid_every = valid_every;
  return plan;
}

std::string TrainingOptions::config(const CommandLine& line, const LearningRate& rate,
                                    Precision precision) const {
  return line.config({{"steps", fmt::format("{}", rate.steps)},
                      {"min-lr", fmt::format("{}", rate.floor)},
                      {"warmup-steps", fmt::format("{}", rate.warmup_steps)},
                      {"precision", precision_name(precision)}});
}

}  // namespace longstrand::pipelines
