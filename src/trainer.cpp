#include "src/trainer.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "kernels/adamw.hpp"
#include "kernels/check.hpp"
#include "src/mixer.hpp"
#include "src/trainer_engine.hpp"

namespace longstrand {

struct Trainer::Parts {
  Parts(Model& trained_model, const TrainerOptions& trainer_options)
      : model(trained_model),
        options(trainer_options),
        gradients(model.parameters().like()),
        first_moment(model.parameters().like()),
        second_moment(model.parameters().like()) {}

  Model& model;
  TrainerOptions options;
  ParameterStore gradients, first_moment, second_moment;
  std::int64_t updates = 0;
  std::unique_ptr<Engine> engine;

  void update(const View<float, 1>& weights, AdamWOptions adamw) {
    const std::int64_t begin = weights.data - model.parameters().all().data;
    const auto part = [&](ParameterStore& store) { return store.all().slice(begin, weights.size()); };
    adamw_step(weights, part(gradients), part(first_moment), part(second_moment), adamw, engine->context());
  }
};

Trainer::Trainer(Model& model, const ExecutionOptions& execution, const TrainerOptions& options)
    : parts_(std::make_unique<Parts>(model, options)) {
  if (options.objective == Objective::classification && !model.classifier()) {
    throw std::invalid_argument("training a classifier needs a model with labels");
  }
  if (options.freeze_backbone && options.objective != Objective::classification) {
    throw std::invalid_argument("a frozen backbone leaves nothing to train but a classifier");
  }
  switch (find_mixer(model.config().mixer).sweep) {
    case Sweep::chunk_major:
      parts_->engine = make_chunk_major_trainer(model, execution, options);
      return;
    case Sweep::layer_major:
      throw std::invalid_argument("bidirectional models are not supported by this version");
  }
}

Trainer::~Trainer() = default;

StepResult Trainer::step(std::span<const TrainingSequence> batch, double learning_rate) {
  Parts& p = *parts_;
  p.gradients.zero();
  const BatchTotals totals = p.engine->accumulate(batch, p.gradients);
  if (totals.targets == 0)
    throw std::runtime_error("the batch has nothing to learn from: no A, C, G or T in it");
  const auto targets = static_cast<double>(totals.targets);
  StepResult result{.loss = totals.loss / targets,
                    .accuracy = static_cast<double>(totals.correct) / targets,
                    .grad_norm = std::sqrt(sum_of_squares(p.gradients.all(), p.engine->context())) / targets,
                    .targets = totals.targets,
                    .tokens = 0};
  for (const TrainingSequence& sequence : batch) result.tokens += sequence.length;
  if (!std::isfinite(result.loss) || !std::isfinite(result.grad_norm)) {
    throw std::runtime_error(concat("the loss is ", result.loss, " and the gradient's norm ",
                                    result.grad_norm, " at update ", p.updates + 1,
                                    "; try a smaller --lr, more --warmup-steps or --precision fp32"));
  }
  const OptimizerOptions& optimizer = p.options.optimizer;
  const bool clip = optimizer.clip_norm > 0 && result.grad_norm > optimizer.clip_norm;
  const double clip_scale = clip ? optimizer.clip_norm / result.grad_norm : 1.0;
  AdamWOptions adamw{.learning_rate = learning_rate,
                     .beta1 = optimizer.beta1,
                     .beta2 = optimizer.beta2,
                     .epsilon = optimizer.epsilon,
                     .weight_decay = optimizer.weight_decay,
                     .gradient_scale = clip_scale / targets,
                     .step = ++p.updates};
  ParameterStore& weights = p.model.parameters();
  p.update(p.options.freeze_backbone ? weights.flat(kHeadWeight) : weights.decayed(), adamw);
  adamw.weight_decay = 0;
  p.update(p.options.freeze_backbone ? weights.flat(kHeadBias) : weights.not_decayed(), adamw);
  p.engine->weights_changed();
  return result;
}

EvaluationResult Trainer::evaluate(std::span<const TrainingSequence> batch) {
  const BatchTotals totals = parts_->engine->evaluate(batch);
  const double targets = std::max<double>(1.0, static_cast<double>(totals.targets));
  return {.loss = totals.loss / targets,
          .accuracy = static_cast<double>(totals.correct) / targets,
          .targets = totals.targets};
}

const ParameterStore& Trainer::gradients() const { return parts_->gradients; }

Trainer::State Trainer::state() const {
  const auto copy = [](const ParameterStore& store) {
    const View<const float, 1> values = store.all();
    return std::vector<float>(values.data, values.data + values.size());
  };
  return {copy(parts_->first_moment), copy(parts_->second_moment), parts_->updates};
}

void Trainer::set_state(const State& state) {
  const auto restore = [](const std::vector<float>& from, ParameterStore& to) {
    if (static_cast<std::int64_t>(from.size()) != to.all().size()) {
      throw std::runtime_error(concat("the optimizer's state has ", from.size(),
                                      " values, but the model needs ", to.all().size(),
                                      "; it is of another model"));
    }
    std::copy(from.begin(), from.end(), to.all().data);
  };
  restore(state.first_moment, parts_->first_moment);
  restore(state.second_moment, parts_->second_moment);
  parts_->updates = state.updates;
}

std::size_t Trainer::peak_bytes() const { return parts_->engine->peak_bytes(); }

}  // namespace longstrand
