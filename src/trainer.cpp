#include "src/trainer.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <stdexcept>

#include "kernels/adamw.hpp"
#include "kernels/check.hpp"
#include "kernels/transfer.hpp"
#include "src/mixer.hpp"
#include "src/trainer_engine.hpp"

namespace longstrand {

namespace {

std::unique_ptr<Trainer::Engine> make_engine(Model& model, const ExecutionOptions& execution,
                                             const TrainerOptions& options) {
  switch (find_mixer(model.config().mixer).sweep) {
    case Sweep::chunk_major:
      return make_chunk_major_trainer(model, execution, options);
    case Sweep::layer_major:
      return make_layer_major_trainer(model, execution, options);
  }
  throw std::logic_error("a sweep without a trainer");
}

void check_options(const Model& model, const TrainerOptions& options) {
  const bool bidirectional = model.config().bidirectional();
  if (options.objective == Objective::next_token && bidirectional) {
    throw std::invalid_argument(
        "a bidirectional model sees the token that it would predict; train it on masked ones");
  }
  if (options.objective == Objective::masked_token && !bidirectional) {
    throw std::invalid_argument("a causal model does not see what is behind a masked token");
  }
  if (options.objective == Objective::classification && !model.classifier()) {
    throw std::invalid_argument("training a classifier needs a model with labels");
  }
  if (options.freeze_backbone && options.objective != Objective::classification) {
    throw std::invalid_argument("a frozen backbone leaves nothing to train but a classifier");
  }
}

}  // namespace

struct Trainer::Parts {
  Parts(Model& trained_model, const ExecutionOptions& execution, const TrainerOptions& trainer_options)
      : model(trained_model),
        options(trainer_options),
        engine(make_engine(trained_model, execution, trainer_options)),
        gradients(engine->weights().like()),
        first_moment(gradients.like()),
        second_moment(gradients.like()) {}

  Model& model;
  TrainerOptions options;
  std::unique_ptr<Engine> engine;
  ParameterStore gradients, first_moment, second_moment;
  std::optional<ParameterStore> gradients_on_host;  // where `gradients` are not
  std::int64_t updates = 0;

  bool on_host() const { return gradients.device().kind == DeviceKind::cpu; }

  void update(const View<float, 1>& weights, AdamWOptions adamw) {
    const std::int64_t begin = weights.data - engine->weights().all().data;
    const auto part = [&](ParameterStore& store) { return store.all().slice(begin, weights.size()); };
    adamw_step(weights, part(gradients), part(first_moment), part(second_moment), adamw, engine->context());
  }
};

Trainer::Trainer(Model& model, const ExecutionOptions& execution, const TrainerOptions& options) {
  check_options(model, options);
  parts_ = std::make_unique<Parts>(model, execution, options);
}

Trainer::~Trainer() = default;

StepResult Trainer::step(std::span<const TrainingSequence> batch, double learning_rate, const Poll& poll) {
  Parts& p = *parts_;
  fill(p.gradients.all(), 0.0F, p.engine->context());
  const BatchTotals totals = p.engine->accumulate(batch, p.gradients, poll);
  if (totals.targets == 0)
    throw std::runtime_error("the batch has nothing to learn from: no A, C, G or T to predict in it");
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
  ParameterStore& weights = p.engine->weights();
  p.update(p.options.freeze_backbone ? weights.flat(kHeadWeight) : weights.decayed(), adamw);
  adamw.weight_decay = 0;
  p.update(p.options.freeze_backbone ? weights.flat(kHeadBias) : weights.not_decayed(), adamw);
  p.engine->weights_changed();
  return result;
}

EvaluationResult Trainer::evaluate(std::span<const TrainingSequence> batch, const Poll& poll) {
  const BatchTotals totals = parts_->engine->evaluate(batch, poll);
  const double targets = std::max<double>(1.0, static_cast<double>(totals.targets));
  return {.loss = totals.loss / targets,
          .accuracy = static_cast<double>(totals.correct) / targets,
          .targets = totals.targets};
}

void Trainer::update_model() {
  Parts& p = *parts_;
  if (!p.on_host()) copy(p.engine->weights().all(), p.model.parameters().all(), p.engine->context());
}

const ParameterStore& Trainer::gradients() const {
  Parts& p = *parts_;
  if (p.on_host()) return p.gradients;
  p.gradients_on_host = p.gradients.like(Device{});
  copy(p.gradients.all(), p.gradients_on_host->all(), p.engine->context());
  return *p.gradients_on_host;
}

Trainer::State Trainer::state() const {
  const auto copied = [this](const ParameterStore& store) {
    std::vector<float> values(static_cast<std::size_t>(store.all().size()));
    copy(store.all(), View<float, 1>(values.data(), store.all().shape), parts_->engine->context());
    return values;
  };
  return {copied(parts_->first_moment), copied(parts_->second_moment), parts_->updates};
}

void Trainer::set_state(const State& state) {
  const auto restore = [this](const std::vector<float>& from, ParameterStore& to) {
    if (std::ssize(from) != to.all().size()) {
      throw std::runtime_error(concat("the optimizer's state has ", from.size(),
                                      " values, but the model needs ", to.all().size(),
                                      "; it is of another model"));
    }
    copy(View<const float, 1>(from.data(), to.all().shape), to.all(), parts_->engine->context());
  };
  restore(state.first_moment, parts_->first_moment);
  restore(state.second_moment, parts_->second_moment);
  parts_->updates = state.updates;
}

std::size_t Trainer::peak_bytes() const {
  // Gradients and two moments; on a GPU the weights are a copy.
  return parts_->engine->peak_bytes() + parts_->gradients.size_bytes() * (parts_->on_host() ? 3 : 4);
}

}  // namespace longstrand
