#include "src/training_head.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>

#include "kernels/check.hpp"
#include "kernels/cross_entropy.hpp"
#include "kernels/pooling.hpp"
#include "src/classifier_head.hpp"
#include "src/vocabulary.hpp"

namespace longstrand {
namespace {

/// Cross entropy of each token given those before it.
template <class T>
class NextTokenHead final : public TrainingHead<T> {
 public:
  NextTokenHead(const Backbone<T>& backbone, const Model& model, bool all_tokens_are_targets)
      : backbone_(backbone),
        lm_head_name_(model.config().tie_embeddings ? kEmbeddingWeight : kLmHeadWeight),
        all_tokens_are_targets_(all_tokens_are_targets),
        d_lm_head_({backbone.vocabulary(), backbone.d_model()}) {}

  bool needs_whole_sequence() const override { return false; }

  void start_batch(std::size_t, ParameterStore* gradients) override {
    this->totals_ = {};
    gradients_ = gradients;
    d_lm_head_.zero();
  }

  void forward(const TrainingChunk& chunk, View<float, 3> residual, View<const T, 3> hidden,
               Context& context) override {
    const Arena::Scope scope(context.scratch);
    const Prediction p = predict(chunk, residual, hidden, context);
    cross_entropy_forward(p.input, p.loss, context);
    add_to_totals(p);
  }

  void backward(const TrainingChunk& chunk, View<float, 3> residual, View<T, 3> hidden,
                View<float, 3> d_residual, Context& context) override {
    const Arena::Scope scope(context.scratch);
    const Prediction p = predict(chunk, residual, hidden, context);
    const auto d_logits = context.scratch.take<T, 2>(p.input.logits.shape);
    cross_entropy_backward<T>(p.input, 1.0F, p.loss, d_logits, context);
    add_to_totals(p);
    const auto d_out = context.scratch.take<T, 3>(hidden.shape);
    backbone_.logits_backward(rows<const T>(p.out), d_logits, rows(d_out), d_lm_head_.view(), context);
    backbone_.finish_backward(residual, d_out, d_residual, hidden, *gradients_, context);
  }

  /// The head's gradient was kept apart: where it is tied, other threads add to the embedding's meanwhile.
  void finish_batch() override {
    if (gradients_ == nullptr) return;
    const View<float, 1> total = gradients_->flat(lm_head_name_);
    std::transform(total.data, total.data + total.size(), d_lm_head_.view().data, total.data, std::plus<>());
  }

 private:
  struct Prediction {
    View<T, 3> out;  // [1, T, D]
    CrossEntropyInput input;
    View<float, 1> loss;  // [T]
  };

  Prediction predict(const TrainingChunk& chunk, View<float, 3> residual, View<const T, 3> hidden,
                     Context& context) const {
    const std::int64_t length = hidden.shape[1];
    Prediction p;
    p.out = context.scratch.take<T, 3>(hidden.shape);
    p.loss = context.scratch.take<float, 1>({length});
    const auto logits = context.scratch.take<float, 2>({length, backbone_.vocabulary()});
    const auto target = context.scratch.take<std::int32_t, 1>({length});
    for (std::int64_t t = 0; t < length; ++t) {
      const std::int32_t next = t + 1 < length ? chunk.tokens.data[t + 1] : chunk.next_token;
      const bool scored = next >= 0 && !all_tokens_are_targets_;
      target.data[t] = scored ? next_token_target(static_cast<std::uint8_t>(next)) : next;
    }
    backbone_.finish(residual, hidden, p.out, context);
    backbone_.logits(rows<const T>(p.out), logits, context);
    p.input = {.logits = logits, .target = target};
    return p;
  }

  void add_to_totals(const Prediction& p) {
    const std::int64_t classes = p.input.logits.shape[1];
    for (std::int64_t t = 0; t < p.loss.size(); ++t) {
      const std::int32_t target = p.input.target.data[t];
      if (target == kNoTarget) continue;
      const float* logits = p.input.logits.at(t);
      this->totals_.loss += static_cast<double>(p.loss.data[t]);
      this->totals_.targets += 1;
      this->totals_.correct += std::max_element(logits, logits + classes) - logits == target;
    }
  }

  const Backbone<T>& backbone_;
  std::string lm_head_name_;
  bool all_tokens_are_targets_;
  Array<float, 2> d_lm_head_;  // [V, D]
  ParameterStore* gradients_ = nullptr;
};

/// Cross entropy of the sequence's label given its pooled hidden rows.
template <class T>
class ClassificationHead final : public TrainingHead<T> {
 public:
  ClassificationHead(const Backbone<T>& backbone, const Model& model)
      : backbone_(backbone),
        head_(model),
        pooling_(model.classifier()->pooling),
        pooled_({1, backbone.d_model()}) {}

  bool needs_whole_sequence() const override { return true; }

  void start_batch(std::size_t sequences, ParameterStore* gradients) override {
    this->totals_ = {};
    gradients_ = gradients;
    d_pooled_.resize(sequences);
  }
  void finish_batch() override {}

  void forward(const TrainingChunk& chunk, View<float, 3> residual, View<const T, 3> hidden,
               Context& context) override {
    const Arena::Scope scope(context.scratch);
    const auto out = context.scratch.take<T, 3>(hidden.shape);
    backbone_.finish(residual, hidden, out, context);
    pool(chunk, out, context);
  }

  void backward(const TrainingChunk& chunk, View<float, 3> residual, View<T, 3> hidden,
                View<float, 3> d_residual, Context& context) override {
    const Arena::Scope scope(context.scratch);
    const auto out = context.scratch.take<T, 3>(hidden.shape);
    backbone_.finish(residual, hidden, out, context);
    if (chunk.first && chunk.last) pool(chunk, out, context);
    std::vector<float>& d_pooled = d_pooled_[chunk.sequence_index];
    std::uint8_t is_last = chunk.last;
    pooling_backward<T>({d_pooled.data(), {1, backbone_.d_model()}}, chunk.valid, {&is_last, {1}}, pooling_,
                        out, context);
    backbone_.finish_backward(residual, out, d_residual, hidden, *gradients_, context);
  }

 private:
  void pool(const TrainingChunk& chunk, View<const T, 3> out, Context& context) {
    const View<double, 2> pooled = pooled_.view();
    if (chunk.first) std::fill_n(pooled.data, pooled.size(), pooling_identity(pooling_));
    pooling_forward<T>(out, chunk.valid, pooling_, pooled, context);
    if (chunk.last) classify(chunk);
  }

  void classify(const TrainingChunk& chunk) {
    const bool mean = pooling_ == Pooling::mean;
    const double scale = mean ? 1.0 / static_cast<double>(chunk.sequence->length) : 1.0;
    std::vector<float> pooled(static_cast<std::size_t>(backbone_.d_model()));
    std::transform(pooled_.view().data, pooled_.view().data + pooled.size(), pooled.begin(),
                   [&](double sum) { return static_cast<float>(sum * scale); });
    const std::int32_t label = chunk.sequence->label;
    if (label < 0 || label >= head_.classes()) {
      throw std::logic_error(
          concat("label ", label, ": the classifier has classes 0 to ", head_.classes() - 1));
    }
    const std::vector<double> log_probabilities = head_.log_probabilities(pooled);
    const auto best = std::max_element(log_probabilities.begin(), log_probabilities.end());
    this->totals_.loss -= log_probabilities[label];
    this->totals_.targets += 1;
    this->totals_.correct += best - log_probabilities.begin() == label;
    if (gradients_ == nullptr) return;
    std::vector<float>& d_pooled = d_pooled_[chunk.sequence_index];
    d_pooled.resize(pooled.size());
    head_.backward(pooled, log_probabilities, label, d_pooled, *gradients_);
    for (float& value : d_pooled) value *= static_cast<float>(scale);
  }

  const Backbone<T>& backbone_;
  ClassifierHead head_;
  Pooling pooling_;
  Array<double, 2> pooled_;                   // [1, D]  of the sequence under way
  std::vector<std::vector<float>> d_pooled_;  // [sequences][D]
  ParameterStore* gradients_ = nullptr;
};

}  // namespace

template <class T>
std::unique_ptr<TrainingHead<T>> make_training_head(const Model& model, const Backbone<T>& backbone,
                                                    const TrainerOptions& options) {
  if (options.objective == Objective::classification) {
    return std::make_unique<ClassificationHead<T>>(backbone, model);
  }
  return std::make_unique<NextTokenHead<T>>(backbone, model, options.all_tokens_are_targets);
}

template std::unique_ptr<TrainingHead<float>> make_training_head(const Model&, const Backbone<float>&,
                                                                 const TrainerOptions&);
template std::unique_ptr<TrainingHead<bfloat16>> make_training_head(const Model&, const Backbone<bfloat16>&,
                                                                    const TrainerOptions&);

}  // namespace longstrand
