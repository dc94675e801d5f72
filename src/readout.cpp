#include "src/readout.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/cross_entropy.hpp"
#include "src/vocabulary.hpp"

namespace longstrand {
namespace {

void to_float(View<const float, 2> from, View<float, 2> to) {
  for (std::int64_t m = 0; m < from.shape[0]; ++m) std::copy_n(from.at(m), from.shape[1], to.at(m));
}

void to_float(View<const bfloat16, 2> from, View<float, 2> to) {
  for (std::int64_t m = 0; m < from.shape[0]; ++m) {
    std::transform(from.at(m), from.at(m) + from.shape[1], to.at(m),
                   [](bfloat16 x) { return static_cast<float>(x); });
  }
}

}  // namespace

template <class T>
ReadoutStage<T>::ReadoutStage(const Model& model, const Backbone<T>& backbone,
                              const InferenceOptions& options)
    : backbone_(backbone), options_(options), pooling_(options.pooling) {
  if (options_.readout == Readout::probabilities) {
    head_.emplace(model);
    pooling_ = model.classifier()->pooling;
    options_.layer = InferenceOptions::kFinal;
  }
  if (options_.readout == Readout::log_likelihood) options_.layer = InferenceOptions::kLogits;
  layers_ = options_.layer > 0 ? static_cast<int>(options_.layer) : backbone.layers();
  features_width_ = needs_logits() ? backbone.vocabulary() : backbone.d_model();
}

template <class T>
bool ReadoutStage<T>::needs_logits() const {
  return options_.layer == InferenceOptions::kLogits;
}

template <class T>
std::int64_t ReadoutStage<T>::width() const {
  return head_ ? head_->classes() : features_width_;
}

template <class T>
void ReadoutStage<T>::reset(std::int64_t lanes) {
  pooled_ = Array<double, 2>({lanes, features_width_});
  length_.assign(static_cast<std::size_t>(lanes), 0);
  last_logits_ = Array<float, 2>({lanes, backbone_.vocabulary()});
  log_likelihood_.assign(static_cast<std::size_t>(lanes), 0);
  scored_bases_.assign(static_cast<std::size_t>(lanes), 0);
}

template <class T>
void ReadoutStage<T>::run(const TokenBatch& batch, View<const std::uint8_t, 2> tokens,
                          View<const std::int64_t, 1> valid, View<float, 3> residual, View<T, 3> hidden,
                          const std::function<void(const ChunkResult&)>& deliver, Context& context) {
  const Arena::Scope scope(context.scratch);
  ChunkResult result{.batch = batch, .tokens = {}, .records = {}, .log_likelihood = {}, .scored_bases = {}};
  // The features: T after the final norm; float where they are logits or the residual stream.
  const auto normed = context.scratch.take<T, 3>(hidden.shape);
  View<float, 3> features;
  if (options_.layer > 0) {
    features = residual;
    const auto last = context.scratch.take<float, 2>(rows(hidden).shape);
    to_float(rows<const T>(hidden), last);
    std::transform(last.data, last.data + last.size(), features.data, features.data, std::plus<>());
  } else {
    backbone_.finish(residual, hidden, normed, context);
    if (needs_logits()) {
      features = context.scratch.take<float, 3>({hidden.shape[0], hidden.shape[1], backbone_.vocabulary()});
      backbone_.logits(rows<const T>(normed), rows(features), context);
    }
  }
  switch (options_.readout) {
    case Readout::tokens:
      if (features.empty()) {
        features = context.scratch.take<float, 3>(normed.shape);
        to_float(rows<const T>(normed), rows(features));
      }
      result.tokens = features;
      break;
    case Readout::log_likelihood:
      add_log_likelihood(batch, tokens, valid, features, context);
      result.log_likelihood = log_likelihood_;
      result.scored_bases = scored_bases_;
      break;
    case Readout::pooled:
    case Readout::probabilities:
      if (features.empty()) {
        add_to_pool<T>(batch, normed, valid, context);
      } else {
        add_to_pool<float>(batch, features, valid, context);
      }
      result.records = finished_records(batch, context);
  }
  deliver(result);
}

template <class T>
void ReadoutStage<T>::add_log_likelihood(const TokenBatch& batch, View<const std::uint8_t, 2> tokens,
                                         View<const std::int64_t, 1> valid, View<const float, 3> logits,
                                         Context& context) {
  const std::int64_t length = logits.shape[1], vocabulary = logits.shape[2];
  // Row t predicts token t: the carried logits first, then this chunk's but for its last.
  const auto predicting = context.scratch.take<float, 2>({length, vocabulary});
  const auto target = context.scratch.take<std::int32_t, 1>({length});
  const auto loss = context.scratch.take<float, 1>({length});
  for (std::int64_t b = 0; b < batch.lanes; ++b) {
    const std::int64_t count = valid.data[b];
    if (batch.starts[b]) {
      log_likelihood_[b] = 0;
      scored_bases_[b] = 0;
    }
    if (count == 0) continue;
    std::copy_n(last_logits_.view().at(b), vocabulary, predicting.data);
    std::copy_n(logits.at(b), (count - 1) * vocabulary, predicting.at(1));
    std::copy_n(logits.at(b, count - 1), vocabulary, last_logits_.view().at(b));
    for (std::int64_t t = 0; t < count; ++t) {
      const bool first_of_record = t == 0 && batch.starts[b];
      target.data[t] = first_of_record ? kNoTarget : next_token_target(tokens.at(b)[t]);
    }
    const CrossEntropyInput input{.logits = predicting.slice(0, count), .target = target.slice(0, count)};
    cross_entropy_forward(input, loss.slice(0, count), context);
    for (std::int64_t t = 0; t < count; ++t) {
      log_likelihood_[b] -= static_cast<double>(loss.data[t]);
      scored_bases_[b] += target.data[t] != kNoTarget;
    }
  }
}

template <class T>
template <class E>
void ReadoutStage<T>::add_to_pool(const TokenBatch& batch, View<const E, 3> features,
                                  View<const std::int64_t, 1> valid, Context& context) {
  for (std::int64_t b = 0; b < batch.lanes; ++b) {
    if (batch.starts[b]) {
      std::fill_n(pooled_.view().at(b), features_width_, pooling_identity(pooling_));
      length_[b] = 0;
    }
    length_[b] += valid.data[b];
  }
  pooling_forward(features, valid, pooling_, pooled_.view(), context);
}

template <class T>
View<const float, 2> ReadoutStage<T>::finished_records(const TokenBatch& batch, Context& context) const {
  const auto records = context.scratch.take<float, 2>({batch.lanes, width()});
  std::vector<float> vector(static_cast<std::size_t>(features_width_));
  for (std::int64_t b = 0; b < batch.lanes; ++b) {
    if (!batch.ends[b]) continue;
    const bool empty = length_[b] == 0;  // has nothing to pool: zeros
    const double scale = pooling_ == Pooling::mean && !empty ? 1.0 / static_cast<double>(length_[b]) : 1.0;
    std::transform(pooled_.view().at(b), pooled_.view().at(b) + features_width_, vector.begin(),
                   [&](double value) { return empty ? 0.0F : static_cast<float>(value * scale); });
    if (head_) {
      const std::vector<double> log_probabilities = head_->log_probabilities(vector);
      std::transform(log_probabilities.begin(), log_probabilities.end(), records.at(b),
                     [](double x) { return static_cast<float>(std::exp(x)); });
    } else {
      std::copy(vector.begin(), vector.end(), records.at(b));
    }
  }
  return records;
}

template class ReadoutStage<float>;
template class ReadoutStage<bfloat16>;

}  // namespace longstrand
