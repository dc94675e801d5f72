#include "pipelines/training_loop.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "io/metrics_log.hpp"
#include "pipelines/interrupt.hpp"
#include "pipelines/logging.hpp"
#include "pipelines/progress.hpp"
#include "pipelines/run_report.hpp"

namespace longstrand::pipelines {
namespace {

using Metrics = nlohmann::ordered_json;

class TrainingLoop {
 public:
  TrainingLoop(const TrainingPlan& plan, RunFolder& run, Model& model, Trainer& trainer)
      : plan_(plan),
        run_(run),
        model_(model),
        trainer_(trainer),
        state_(run.has_state() ? run.load_state(trainer) : RunState{}),
        metrics_(run.file("metrics.jsonl"), state_.open_line.empty() ? state_.step : state_.step - 1),
        progress_(plan.name, share_done()),
        last_step_(fmt::format("step {}", state_.step + 1)) {}

  void run() {
    const std::int64_t steps = plan_.learning_rate.steps;
    if (state_.step > 0) spdlog::info("resuming after step {} of {}", state_.step, steps);
    while (state_.step < steps || !state_.open_line.empty()) {
      try {
        stop_if_interrupted(/*resumable=*/true);
        if (state_.open_line.empty()) one_step();
        finish_step();
      } catch (const Interrupted&) {
        stop();
      }
      if (state_.step % plan_.save_every == 0 || state_.step == steps) save();
    }
    finish();
  }

 private:
  double share_done() const {
    const auto at_least_1 = [](std::int64_t value) {
      return static_cast<double>(std::max<std::int64_t>(value, 1));
    };
    const double of_step = static_cast<double>(done_tokens_) / at_least_1(step_tokens_);
    return (static_cast<double>(state_.step) + of_step) / at_least_1(plan_.learning_rate.steps);
  }

  void show_progress() { progress_.update(tokens_ + done_tokens_, share_done(), last_step_); }

  /// A step or a validation over a chromosome takes long: now and then it shows that it is alive, and stops
  /// on Ctrl-C, before it has changed anything.
  void look_up() {
    stop_if_interrupted(/*resumable=*/true);
    show_progress();
  }

  /// What reads tokens also looks up.
  std::vector<TrainingSequence> watched(std::vector<TrainingSequence> batch) {
    for (TrainingSequence& sequence : batch) {
      sequence.read = [this, read = std::move(sequence.read)](std::int64_t begin,
                                                              std::span<std::uint8_t> tokens) {
        look_up();
        read(begin, tokens);
      };
    }
    return batch;
  }

  void one_step() {
    const auto start = std::chrono::steady_clock::now();
    const auto batch = watched(plan_.batch(state_.step));
    const double rate = plan_.learning_rate.at(state_.step + 1);
    step_tokens_ = 0;
    for (const TrainingSequence& sequence : batch) step_tokens_ += sequence.length;
    const auto result = trainer_.step(batch, rate, [this](std::int64_t tokens) {
      done_tokens_ = tokens;
      look_up();
    });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    state_.step += 1;
    tokens_ += result.tokens;
    done_tokens_ = 0;
    Metrics line = {
        {"step", state_.step},           {"loss", result.loss},
        {"grad_norm", result.grad_norm}, {"lr", rate},
        {"tokens", result.tokens},       {"tokens_per_second", static_cast<double>(result.tokens) / seconds},
        {"accuracy", result.accuracy}};
    state_.open_line = line.dump();
    last_step_ = fmt::format("step {}  loss {:.4f}", state_.step, result.loss);
  }

  /// Validates where that is due and logs the step. A run that is stopped in a validation does it again.
  void finish_step() {
    Metrics line = Metrics::parse(state_.open_line);
    if (state_.step % plan_.valid_every == 0 || state_.step == plan_.learning_rate.steps) validate(line);
    metrics_.append(line);
    state_.open_line.clear();
    show_progress();
  }

  void validate(Metrics& line) {
    if (plan_.validation.empty()) return;
    const auto result = trainer_.evaluate(watched(plan_.validation), [this](std::int64_t) { look_up(); });
    if (result.targets == 0) return;
    line["valid_loss"] = result.loss;
    line["valid_accuracy"] = result.accuracy;
    if (!better(result)) return;
    state_.best = {.step = state_.step, .loss = result.loss, .accuracy = result.accuracy};
    trainer_.update_model();
    run_.save_best(model_);
  }

  bool better(const EvaluationResult& result) const {
    const auto& best = state_.best;
    if (best.step == 0) return true;
    if (plan_.classifies && result.accuracy != best.accuracy) return result.accuracy > best.accuracy;
    return result.loss < best.loss;
  }

  void save() {
    metrics_.sync();
    trainer_.update_model();
    run_.save(model_, trainer_, state_);
    saved_step_ = state_.step;
  }

  [[noreturn]] void stop() {
    if (saved_step_ != state_.step) save();
    throw Interrupted(
        fmt::format("interrupted after step {} of {}, which is saved in '{}'; run the same command with "
                    "--resume to go on",
                    state_.step, plan_.learning_rate.steps, run_.path().string()));
  }

  void finish() {
    write_run_report(run_, plan_.name);
    if (state_.best.step > 0) {
      spdlog::info("best validation at step {}: loss {:.4f}, accuracy {:.4f}", state_.best.step,
                   state_.best.loss, state_.best.accuracy);
    }
    spdlog::info("{} steps done; the model is in '{}'", state_.step, run_.file("model"));
  }

  const TrainingPlan& plan_;
  RunFolder& run_;
  Model& model_;
  Trainer& trainer_;
  RunState state_;
  io::MetricsLog metrics_;
  std::int64_t tokens_ = 0;       // trained on by this process
  std::int64_t step_tokens_ = 0;  // of the step under way
  std::int64_t done_tokens_ = 0;  // of these
  std::int64_t saved_step_ = -1;  // by this process
  Progress progress_;
  std::string last_step_;  // for the progress line
};

}  // namespace

void run_training(const TrainingPlan& plan, RunFolder& run, Model& model, Trainer& trainer) {
  TrainingLoop(plan, run, model, trainer).run();
}

}  // namespace longstrand::pipelines
