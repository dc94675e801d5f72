#include "src/training_head.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <span>

#include "kernels/check.hpp"
#include "kernels/cross_entropy.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/next_token.hpp"
#include "kernels/pooling.hpp"
#include "kernels/strands.hpp"
#include "kernels/transfer.hpp"
#include "src/classifier_head.hpp"
#include "src/strands.hpp"
#include "src/vocabulary.hpp"

namespace longstrand {
namespace {

/// Cross entropy of tokens: of each given those before it, or of masked ones given all.
///
/// With both strands, logits are joined over whole records, and what is asked of one strand is asked of the
/// other one too, where it faces it: so the gradient of either strand's own logits is that of the joined
/// ones, and everything counts twice.
template <class T>
class TokenHead final : public TrainingHead<T> {
 public:
  TokenHead(const Backbone<T>& backbone, const Model& model, const TrainerOptions& options, Context& context)
      : backbone_(backbone),
        lm_head_name_(model.config().tie_embeddings ? kEmbeddingWeight : kLmHeadWeight),
        predicted_(options.all_tokens_are_targets ? TokenRange{} : kPredictedTokens),
        masked_(options.objective == Objective::masked_token),
        strands_(strands_of(model.config())),
        facing_(facing_logits(backbone.vocabulary(), context)),
        d_lm_head_({backbone.vocabulary(), backbone.d_model()}, context.device),
        totals_({3}, context.device),
        joined_arena_(context.device) {}

  bool needs_whole_sequence() const override { return strands_ > 1; }

  void start_batch(std::int64_t, ParameterStore* gradients, Context& context) override {
    gradients_ = gradients;
    fill(totals_.view(), 0.0, context);
    fill(d_lm_head_.view(), 0.0F, context);
  }

  void forward(const TrainingChunk& chunk, View<const T, 3> normed, Context& context) override {
    const Arena::Scope scope(context.scratch);
    if (strands_ > 1) return join(chunk, normed, context);
    count({.logits = logits(normed, context), .target = targets_of(chunk, context)}, context);
  }

  void backward(const TrainingChunk& chunk, View<const float, 3> residual, View<T, 3> hidden,
                View<float, 3> d_residual, Context& context) override {
    const Arena::Scope scope(context.scratch);
    const typename Backbone<T>::Finished normed = backbone_.finish(residual, hidden, context);
    if (strands_ > 1 && chunk.first && chunk.last) join(chunk, normed.out, context);
    const CrossEntropyInput input{
        .logits = strands_ > 1 ? rows(joined_.index(chunk.index)) : logits(normed.out, context),
        .target = targets_of(chunk, context)};
    const auto loss = context.scratch.take<float, 1>(input.target.shape);
    const auto d_logits = context.scratch.take<T, 2>(input.logits.shape);
    cross_entropy_backward<T>(input, 1.0F, loss, d_logits, context);
    if (strands_ == 1) cross_entropy_totals(input, loss, totals_.view(), context);
    const auto d_out = context.scratch.take<T, 3>(hidden.shape);
    backbone_.logits_backward(rows<const T>(normed.out), d_logits, rows(d_out), d_lm_head_.view(), context);
    backbone_.finish_backward(normed.total, d_out, d_residual, hidden, *gradients_, context);
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
    return {.loss = sums[0] / strands_,
            .targets = static_cast<std::int64_t>(sums[1]) / strands_,
            .correct = static_cast<std::int64_t>(sums[2]) / strands_};
  }

  void weights_changed(const ParameterStore&, Context&) override {}

  std::size_t size_bytes() const override {
    return facing_.size_bytes() + d_lm_head_.size_bytes() + totals_.size_bytes() +
           joined_arena_.high_water_bytes();
  }

 private:
  View<const float, 2> logits(View<const T, 3> out, Context& context) const {
    const View<const T, 2> hidden = rows(out);
    const auto logits = context.scratch.take<float, 2>({hidden.shape[0], backbone_.vocabulary()});
    backbone_.logits(hidden, logits, context);
    return logits;
  }

  /// [L * T]
  View<const std::int32_t, 1> targets_of(const TrainingChunk& chunk, Context& context) const {
    const std::int64_t count = chunk.tokens.size();
    if (masked_) return {chunk.targets.index(chunk.index).data, {count}, context.device};
    const auto target = context.scratch.take<std::int32_t, 1>({count});
    next_token_targets(chunk.tokens, chunk.next, chunk.valid, predicted_, target, context);
    return target;
  }

  void count(const CrossEntropyInput& input, Context& context) {
    const auto loss = context.scratch.take<float, 1>(input.target.shape);
    cross_entropy_forward(input, loss, context);
    cross_entropy_totals(input, loss, totals_.view(), context);
  }

  /// Chunks first to last: with the last one, the logits of the whole bundle are there.
  void join(const TrainingChunk& chunk, View<const T, 3> out, Context& context) {
    const auto [chunks, lanes, tokens] = chunk.targets.shape;
    if (chunk.first) {
      joined_scope_.reset();
      joined_scope_.emplace(joined_arena_);
      joined_ = joined_arena_.template take<float, 4>({chunks, lanes, tokens, backbone_.vocabulary()});
    }
    backbone_.logits(rows(out), rows(joined_.index(chunk.index)), context);
    if (!chunk.last) return;
    add_facing_strands(joined_, chunk.length, facing_.view(), 1.0F, context);
    const std::int64_t rows_of_all = chunks * lanes * tokens;
    count(
        {.logits = View<const float, 2>(joined_.data, {rows_of_all, backbone_.vocabulary()}, joined_.device),
         .target = View<const std::int32_t, 1>(chunk.targets.data, {rows_of_all}, joined_.device)},
        context);
  }

  const Backbone<T>& backbone_;
  std::string lm_head_name_;
  TokenRange predicted_;
  bool masked_;
  int strands_;
  Array<std::int32_t, 1> facing_;  // [V]
  Array<float, 2> d_lm_head_;      // [V, D]
  Array<double, 1> totals_;        // [3]  as cross_entropy_totals writes them
  Arena joined_arena_;
  std::optional<Arena::Scope> joined_scope_;
  View<float, 4> joined_;  // [chunks, L, T, V]  logits of both strands together
  ParameterStore* gradients_ = nullptr;
};

/// Cross entropy of the sequence's label given its pooled hidden rows.
template <class T>
class ClassificationHead final : public TrainingHead<T> {
 public:
  ClassificationHead(const Backbone<T>& backbone, const Model& model, const ParameterStore& weights,
                     Context& context)
      : backbone_(backbone),
        head_(weights, context),
        pooling_(model.classifier()->pooling),
        strands_(strands_of(model.config())) {}

  bool needs_whole_sequence() const override { return true; }

  void start_batch(std::int64_t lanes, ParameterStore* gradients, Context& context) override {
    totals_ = {};
    gradients_ = gradients;
    head_.clear_gradient();
    lanes *= strands_;
    if (lanes <= pooled_.view().shape[0]) return;
    pooled_ = Array<double, 2>({lanes, backbone_.d_model()}, context.device);
    d_pooled_ = Array<float, 2>({lanes, backbone_.d_model()}, context.device);
  }

  void finish_batch(Context& context) override {
    if (gradients_ != nullptr) head_.add_gradient_to(*gradients_, context);
  }

  void forward(const TrainingChunk& chunk, View<const T, 3> normed, Context& context) override {
    pool(chunk, normed, context);
  }

  void backward(const TrainingChunk& chunk, View<const float, 3> residual, View<T, 3> hidden,
                View<float, 3> d_residual, Context& context) override {
    const Arena::Scope scope(context.scratch);
    const auto [total, out] = backbone_.finish(residual, hidden, context);
    if (chunk.first && chunk.last) pool(chunk, out, context);
    pooling_backward<T>(lanes_of(d_pooled_, *chunk.bundle), chunk.valid, chunk.ends, pooling_, out, context);
    backbone_.finish_backward(total, out, d_residual, hidden, *gradients_, context);
  }

  BatchTotals totals(Context&) const override { return totals_; }

  void weights_changed(const ParameterStore& weights, Context& context) override {
    head_.load(weights, context);
  }
  std::size_t size_bytes() const override { return pooled_.size_bytes() + d_pooled_.size_bytes(); }

 private:
  template <class E>
  View<E, 2> lanes_of(const Array<E, 2>& array, const Bundle& bundle) const {
    return array.view().slice(strands_ * bundle.first_lane, strands_ * bundle.lanes());
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
      const std::size_t of_sequence = strands_ * width;
      classify(*bundle.sequences[b], std::span(sums).subspan(b * of_sequence, of_sequence),
               std::span(d_pooled).subspan(b * of_sequence, of_sequence));
    }
    copy(View<const float, 2>(d_pooled.data(), pooled.shape), lanes_of(d_pooled_, bundle), context);
  }

  /// Of all its lanes, which are averaged.
  void classify(const TrainingSequence& sequence, std::span<const double> sums, std::span<float> d_pooled) {
    if (sequence.label < 0 || sequence.label >= head_.classes()) {
      throw std::logic_error(
          concat("label ", sequence.label, ": the classifier has classes 0 to ", head_.classes() - 1));
    }
    const double rows_pooled = pooling_ == Pooling::mean ? static_cast<double>(sequence.length) : 1.0;
    const double scale = 1.0 / (strands_ * rows_pooled);
    const std::size_t width = sums.size() / strands_;
    std::vector<float> pooled(width);
    for (std::size_t d = 0; d < width; ++d) {
      double sum = 0;
      for (std::size_t i = d; i < sums.size(); i += width) sum += sums[i];
      pooled[d] = static_cast<float>(sum * scale);
    }
    const std::vector<double> log_probabilities = head_.log_probabilities(pooled);
    const auto best = std::ranges::max_element(log_probabilities);
    totals_.loss -= log_probabilities[sequence.label];
    totals_.targets += 1;
    totals_.correct += best - log_probabilities.begin() == sequence.label;
    if (gradients_ == nullptr) return;
    head_.backward(pooled, log_probabilities, sequence.label, d_pooled.first(width));
    for (float& value : d_pooled.first(width)) value *= static_cast<float>(scale);
    for (std::size_t i = width; i < d_pooled.size(); ++i) d_pooled[i] = d_pooled[i - width];
  }

  const Backbone<T>& backbone_;
  ClassifierHead head_;
  Pooling pooling_;
  int strands_;
  BatchTotals totals_;
  Array<double, 2> pooled_;   // [strands * lanes of the batch, D]
  Array<float, 2> d_pooled_;  // [strands * lanes of the batch, D]
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
  return std::make_unique<TokenHead<T>>(backbone, model, options, context);
}

template std::unique_ptr<TrainingHead<float>> make_training_head(const Model&, const ParameterStore&,
                                                                 const Backbone<float>&,
                                                                 const TrainerOptions&, Context&);
template std::unique_ptr<TrainingHead<bfloat16>> make_training_head(const Model&, const ParameterStore&,
                                                                    const Backbone<bfloat16>&,
                                                                    const TrainerOptions&, Context&);

}  // namespace longstrand
