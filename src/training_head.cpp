#include "src/training_head.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

#include "kernels/check.hpp"
#include "kernels/cross_entropy.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/next_token.hpp"
#include "kernels/pooling.hpp"
#include "kernels/transfer.hpp"
#include "src/classifier_head.hpp"
#include "src/vocabulary.hpp"

namespace longstrand {
namespace {

/// Cross entropy of each token given those before it.
template <class T>
class NextTokenHead final : public TrainingHead<T> {
 public:
  NextTokenHead(const Backbone<T>& backbone, const Model& model, bool all_tokens_are_targets,
                const Context& context)
      : backbone_(backbone),
        lm_head_name_(model.config().tie_embeddings ? kEmbeddingWeight : kLmHeadWeight),
        predicted_(all_tokens_are_targets ? TokenRange{} : kPredictedTokens),
        d_lm_head_({backbone.vocabulary(), backbone.d_model()}, context.device),
        totals_({3}, context.device) {}

  bool needs_whole_sequence() const override { return false; }

  void start_batch(std::int64_t, ParameterStore* gradients, Context& context) override {
    gradients_ = gradients;
    fill(totals_.view(), 0.0, context);
    fill(d_lm_head_.view(), 0.0F, context);
  }

  void forward(const TrainingChunk& chunk, View<const float, 3> residual, View<const T, 3> hidden,
               Context& context) override {
    const Arena::Scope scope(context.scratch);
    const Prediction p = predict(chunk, residual, hidden, context);
    cross_entropy_forward(p.input, p.loss, context);
    cross_entropy_totals(p.input, p.loss, totals_.view(), context);
  }

  void backward(const TrainingChunk& chunk, View<const float, 3> residual, View<T, 3> hidden,
                View<float, 3> d_residual, Context& context) override {
    const Arena::Scope scope(context.scratch);
    const Prediction p = predict(chunk, residual, hidden, context);
    const auto d_logits = context.scratch.take<T, 2>(p.input.logits.shape);
    cross_entropy_backward<T>(p.input, 1.0F, p.loss, d_logits, context);
    cross_entropy_totals(p.input, p.loss, totals_.view(), context);
    const auto d_out = context.scratch.take<T, 3>(hidden.shape);
    backbone_.logits_backward(rows<const T>(p.out), d_logits, rows(d_out), d_lm_head_.view(), context);
    backbone_.finish_backward(p.total, d_out, d_residual, hidden, *gradients_, context);
  }

  /// The head's gradient was kept apart: where it is tied, other threads add to the embedding's meanwhile.
  void finish_batch(Context& context) override {
    if (gradients_ == nullptr) return;
    const View<float, 2> of_head = d_lm_head_.view();
    add(View<const float, 1>(of_head.data, {of_head.size()}, of_head.device), gradients_->flat(lm_head_name_),
        context);
  }

  BatchTotals totals(Context& context) const override {
    std::array<double, 3> sums{};
    copy(totals_.view(), View<double, 1>(sums.data(), {3}), context);
    return {.loss = sums[0],
            .targets = static_cast<std::int64_t>(sums[1]),
            .correct = static_cast<std::int64_t>(sums[2])};
  }

  void weights_changed(const ParameterStore&, Context&) override {}

 private:
  struct Prediction {
    View<float, 3> total;  // [B, T, D]  as of Backbone::finish
    View<T, 3> out;        // [B, T, D]
    CrossEntropyInput input;
    View<float, 1> loss;  // [B * T]
  };

  Prediction predict(const TrainingChunk& chunk, View<const float, 3> residual, View<const T, 3> hidden,
                     Context& context) const {
    const std::int64_t count = hidden.shape[0] * hidden.shape[1];
    Prediction p;
    p.total = context.scratch.take<float, 3>(hidden.shape);
    p.out = context.scratch.take<T, 3>(hidden.shape);
    p.loss = context.scratch.take<float, 1>({count});
    const auto logits = context.scratch.take<float, 2>({count, backbone_.vocabulary()});
    const auto target = context.scratch.take<std::int32_t, 1>({count});
    next_token_targets(chunk.tokens, chunk.next, chunk.valid, predicted_, target, context);
    backbone_.finish(residual, hidden, p.total, p.out, context);
    backbone_.logits(rows<const T>(p.out), logits, context);
    p.input = {.logits = logits, .target = target};
    return p;
  }

  const Backbone<T>& backbone_;
  std::string lm_head_name_;
  TokenRange predicted_;
  Array<float, 2> d_lm_head_;  // [V, D]
  Array<double, 1> totals_;    // [3]  as cross_entropy_totals writes them
  ParameterStore* gradients_ = nullptr;
};

/// Cross entropy of the sequence's label given its pooled hidden rows.
template <class T>
class ClassificationHead final : public TrainingHead<T> {
 public:
  ClassificationHead(const Backbone<T>& backbone, const Model& model, const ParameterStore& weights,
                     Context& context)
      : backbone_(backbone), head_(weights, context), pooling_(model.classifier()->pooling) {}

  bool needs_whole_sequence() const override { return true; }

  void start_batch(std::int64_t lanes, ParameterStore* gradients, Context& context) override {
    totals_ = {};
    gradients_ = gradients;
    head_.clear_gradient();
    if (lanes <= pooled_.view().shape[0]) return;
    pooled_ = Array<double, 2>({lanes, backbone_.d_model()}, context.device);
    d_pooled_ = Array<float, 2>({lanes, backbone_.d_model()}, context.device);
  }

  void finish_batch(Context& context) override {
    if (gradients_ != nullptr) head_.add_gradient_to(*gradients_, context);
  }

  void forward(const TrainingChunk& chunk, View<const float, 3> residual, View<const T, 3> hidden,
               Context& context) override {
    const Arena::Scope scope(context.scratch);
    const auto total = context.scratch.take<float, 3>(hidden.shape);
    const auto out = context.scratch.take<T, 3>(hidden.shape);
    backbone_.finish(residual, hidden, total, out, context);
    pool(chunk, out, context);
  }

  void backward(const TrainingChunk& chunk, View<const float, 3> residual, View<T, 3> hidden,
                View<float, 3> d_residual, Context& context) override {
    const Arena::Scope scope(context.scratch);
    const auto total = context.scratch.take<float, 3>(hidden.shape);
    const auto out = context.scratch.take<T, 3>(hidden.shape);
    backbone_.finish(residual, hidden, total, out, context);
    if (chunk.first && chunk.last) pool(chunk, out, context);
    pooling_backward<T>(lanes_of(d_pooled_, *chunk.bundle), chunk.valid, chunk.ends, pooling_, out, context);
    backbone_.finish_backward(total, out, d_residual, hidden, *gradients_, context);
  }

  BatchTotals totals(Context&) const override { return totals_; }

  void weights_changed(const ParameterStore& weights, Context& context) override {
    head_.load(weights, context);
  }

 private:
  template <class E>
  static View<E, 2> lanes_of(const Array<E, 2>& array, const Bundle& bundle) {
    return array.view().slice(bundle.first_lane, bundle.lanes());
  }

  void pool(const TrainingChunk& chunk, View<const T, 3> out, Context& context) {
    const View<double, 2> pooled = lanes_of(pooled_, *chunk.bundle);
    if (chunk.first) fill(pooled, pooling_identity(pooling_), context);
    pooling_forward<T>(out, chunk.valid, pooling_, pooled, context);
    if (chunk.last) classify(*chunk.bundle, context);
  }

  void classify(const Bundle& bundle, Context& context) {
    const auto width = static_cast<std::size_t>(backbone_.d_model());
    const View<double, 2> pooled = lanes_of(pooled_, bundle);
    std::vector<double> sums(static_cast<std::size_t>(pooled.size()));
    copy(pooled, View<double, 2>(sums.data(), pooled.shape), context);
    std::vector<float> d_pooled(sums.size());
    for (std::size_t b = 0; b < bundle.sequences.size(); ++b) {
      classify(*bundle.sequences[b], std::span(sums).subspan(b * width, width),
               std::span(d_pooled).subspan(b * width, width));
    }
    copy(View<const float, 2>(d_pooled.data(), pooled.shape), lanes_of(d_pooled_, bundle), context);
  }

  void classify(const TrainingSequence& sequence, std::span<const double> sums, std::span<float> d_pooled) {
    if (sequence.label < 0 || sequence.label >= head_.classes()) {
      throw std::logic_error(
          concat("label ", sequence.label, ": the classifier has classes 0 to ", head_.classes() - 1));
    }
    const bool mean = pooling_ == Pooling::mean;
    const double scale = mean ? 1.0 / static_cast<double>(sequence.length) : 1.0;
    std::vector<float> pooled(sums.size());
    std::ranges::transform(sums, pooled.begin(), [&](double sum) { return static_cast<float>(sum * scale); });
    const std::vector<double> log_probabilities = head_.log_probabilities(pooled);
    const auto best = std::ranges::max_element(log_probabilities);
    totals_.loss -= log_probabilities[sequence.label];
    totals_.targets += 1;
    totals_.correct += best - log_probabilities.begin() == sequence.label;
    if (gradients_ == nullptr) return;
    head_.backward(pooled, log_probabilities, sequence.label, d_pooled);
    for (float& value : d_pooled) value *= static_cast<float>(scale);
  }

  const Backbone<T>& backbone_;
  ClassifierHead head_;
  Pooling pooling_;
  BatchTotals totals_;
  Array<double, 2> pooled_;   // [lanes of the batch, D]
  Array<float, 2> d_pooled_;  // [lanes of the batch, D]
  ParameterStore* gradients_ = nullptr;
};

}  // namespace

template <class T>
std::unique_ptr<TrainingHead<T>> make_training_head(const Model& model, const ParameterStore& weights,
                                                    const Backbone<T>& backbone,
                                                    const TrainerOptions& options, Context& context) {
  if (options.objective == Objective::classification) {
    return std::make_unique<ClassificationHead<T>>(backbone, model, weights, context);
  }
  return std::make_unique<NextTokenHead<T>>(backbone, model, options.all_tokens_are_targets, context);
}

template std::unique_ptr<TrainingHead<float>> make_training_head(const Model&, const ParameterStore&,
                                                                 const Backbone<float>&,
                                                                 const TrainerOptions&, Context&);
template std::unique_ptr<TrainingHead<bfloat16>> make_training_head(const Model&, const ParameterStore&,
                                                                    const Backbone<bfloat16>&,
                                                                    const TrainerOptions&, Context&);

}  // namespace longstrand
