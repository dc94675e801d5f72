#include "src/readout.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

#include "kernels/cross_entropy.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/next_token.hpp"
#include "kernels/transfer.hpp"
#include "src/vocabulary.hpp"

namespace longstrand {
namespace {

bool any(const std::vector<std::uint8_t>& flags) {
  return std::ranges::any_of(flags, [](std::uint8_t flag) { return flag != 0; });
}

}  // namespace

template <class T>
ReadoutStage<T>::ReadoutStage(const Model& model, const ParameterStore& weights, const Backbone<T>& backbone,
                              const InferenceOptions& options, Context& context)
    : backbone_(backbone), options_(options), pooling_(options.pooling) {
  if (options_.readout == Readout::probabilities) {
    head_.emplace(weights, context);
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
std::size_t ReadoutStage<T>::size_bytes() const {
  return pooled_.size_bytes() + last_logits_.size_bytes() + surprisal_.size_bytes();
}

template <class T>
void ReadoutStage<T>::compute(const InferenceChunk<T>& chunk, Arena& arena, ReadoutLanding& landing,
                              Context& context) {
  const Arena::Scope scope(context.scratch);
  const std::int64_t lanes = chunk.batch.lanes;
  // The features: T after the final norm; float where they are logits or the residual stream.
  const auto normed = context.scratch.take<T, 3>(chunk.hidden.shape);
  backbone_.finish(chunk.residual, chunk.hidden, chunk.residual, normed, context);
  View<float, 3> features;
  if (options_.layer > 0) {
    features = chunk.residual;  // with hidden added by finish()
  } else if (needs_logits()) {
    features = arena.take<float, 3>({lanes, chunk.hidden.shape[1], backbone_.vocabulary()});
    backbone_.logits(rows<const T>(normed), rows(features), context);
  }
  switch (options_.readout) {
    case Readout::tokens:
      if (features.empty()) {
        features = arena.take<float, 3>(normed.shape);
        if constexpr (std::is_same_v<T, float>) {
          copy(normed, features, context);
        } else {
          convert(rows<const T>(normed), rows(features), context);
        }
      }
      landing.tokens.start(features, context);
      break;
    case Readout::log_likelihood:
      add_surprisal(chunk, features, context);
      if (any(chunk.batch.ends)) landing.surprisal.start(surprisal_.view().slice(0, lanes), context);
      break;
    case Readout::pooled:
    case Readout::probabilities: {
      reserve_lanes(pooled_, lanes, features_width_, context);
      const View<double, 2> pooled = pooled_.view().slice(0, lanes);
      if (!chunk.starts.empty()) fill_marked_rows(pooled, chunk.starts, pooling_identity(pooling_), context);
      if (features.empty()) {
        pooling_forward<T>(normed, chunk.valid, pooling_, pooled, context);
      } else {
        pooling_forward<float>(features, chunk.valid, pooling_, pooled, context);
      }
      if (any(chunk.batch.ends)) landing.pooled.start(pooled, context);
    }
  }
}

/// The chunk's tokens but for its first: each is predicted by the row before it.
template <class T>
void ReadoutStage<T>::add_surprisal(const InferenceChunk<T>& chunk, View<const float, 3> logits,
                                    Context& context) {
  const auto [lanes, length, vocabulary] = logits.shape;
  reserve_lanes(surprisal_, lanes, 1, context);
  reserve_lanes(last_logits_, lanes, vocabulary, context);
  const View<double, 2> surprisal = surprisal_.view().slice(0, lanes);
  if (!chunk.starts.empty()) fill_marked_rows(surprisal, chunk.starts, 0.0, context);
  add_surprisal_of_first_tokens(chunk, context);

  const Arena::Scope scope(context.scratch);
  const std::vector<std::int32_t> unknown(static_cast<std::size_t>(lanes), -1);  // the next chunk scores it
  const auto target = context.scratch.take<std::int32_t, 1>({lanes * length});
  const auto loss = context.scratch.take<float, 1>({lanes * length});
  next_token_targets(chunk.tokens, upload(unknown, context.scratch, context), chunk.valid, kPredictedTokens,
                     target, context);
  cross_entropy_forward({.logits = rows(logits), .target = target}, loss, context);
  const View<const float, 3> loss_of_lanes(loss.data, {lanes, length, 1}, loss.device);
  pooling_forward(loss_of_lanes, chunk.valid, Pooling::mean, surprisal, context);
  pooling_forward(logits, chunk.valid, Pooling::last, last_logits_.view().slice(0, lanes), context);
}

/// Those are predicted by the chunk before. The first token of a record is not predicted.
template <class T>
void ReadoutStage<T>::add_surprisal_of_first_tokens(const InferenceChunk<T>& chunk, Context& context) {
  const TokenBatch& batch = chunk.batch;
  const auto lanes = static_cast<std::size_t>(batch.lanes);
  std::vector<std::int32_t> first(lanes, kNoTarget);
  for (std::size_t b = 0; b < lanes; ++b) {
    const std::uint8_t token = batch.tokens[b * static_cast<std::size_t>(batch.length)];
    if (batch.valid[b] > 0 && !batch.starts[b]) first[b] = next_token_target(token);
  }
  if (std::ranges::count(first, kNoTarget) == batch.lanes) return;
  const Arena::Scope scope(context.scratch);
  const auto logits = context.scratch.take<float, 2>({batch.lanes, backbone_.vocabulary()});
  const auto loss = context.scratch.take<float, 1>({batch.lanes});
  convert<double>(last_logits_.view().slice(0, batch.lanes), logits, context);
  const CrossEntropyInput input{.logits = logits, .target = upload(first, context.scratch, context)};
  cross_entropy_forward(input, loss, context);
  const std::vector<std::int64_t> one_each(lanes, 1);
  pooling_forward(View<const float, 3>(loss.data, {batch.lanes, 1, 1}, loss.device),
                  upload(one_each, context.scratch, context), Pooling::mean,
                  surprisal_.view().slice(0, batch.lanes), context);
}

template <class T>
void ReadoutStage<T>::deliver(const TokenBatch& batch, ReadoutLanding& landing,
                              const std::function<void(const ChunkResult&)>& deliver) {
  ChunkResult result{.batch = batch, .tokens = {}, .records = {}, .log_likelihood = {}, .scored_bases = {}};
  count_lanes(batch);
  switch (options_.readout) {
    case Readout::tokens:
      result.tokens = landing.tokens.wait();
      break;
    case Readout::log_likelihood:
      result.log_likelihood.resize(static_cast<std::size_t>(batch.lanes));
      if (any(batch.ends)) {
        const View<const double, 2> surprisal = landing.surprisal.wait();
        std::transform(surprisal.data, surprisal.data + batch.lanes, result.log_likelihood.begin(),
                       std::negate<>());
      }
      result.scored_bases = scored_bases_;
      break;
    case Readout::pooled:
    case Readout::probabilities:
      records_.resize(static_cast<std::size_t>(batch.lanes * width()));
      result.records = {records_.data(), {batch.lanes, width()}};
      if (any(batch.ends)) finish_records(batch, landing.pooled.wait());
  }
  deliver(result);
}

template <class T>
void ReadoutStage<T>::count_lanes(const TokenBatch& batch) {
  length_.resize(static_cast<std::size_t>(batch.lanes));
  scored_bases_.resize(length_.size());
  for (std::size_t b = 0; b < length_.size(); ++b) {
    if (batch.starts[b]) length_[b] = scored_bases_[b] = 0;
    if (options_.readout == Readout::log_likelihood) {
      const std::uint8_t* tokens = batch.tokens.data() + static_cast<std::int64_t>(b) * batch.length;
      // The first base of a record is not scored.
      const std::int64_t begin = std::min<std::int64_t>(batch.starts[b] ? 1 : 0, batch.valid[b]);
      scored_bases_[b] += std::count_if(tokens + begin, tokens + batch.valid[b],
                                        [](std::uint8_t token) { return kPredictedTokens.contains(token); });
    }
    length_[b] += batch.valid[b];
  }
}

template <class T>
void ReadoutStage<T>::finish_records(const TokenBatch& batch, View<const double, 2> pooled) {
  std::vector<float> values(static_cast<std::size_t>(features_width_));
  for (std::int64_t b = 0; b < batch.lanes; ++b) {
    if (!batch.ends[b]) continue;
    const bool empty = length_[b] == 0;  // has nothing to pool: zeros
    const double scale = pooling_ == Pooling::mean && !empty ? 1.0 / static_cast<double>(length_[b]) : 1.0;
    std::transform(pooled.at(b), pooled.at(b) + features_width_, values.begin(),
                   [&](double value) { return empty ? 0.0F : static_cast<float>(value * scale); });
    float* record = records_.data() + b * width();
    if (head_) {
      const std::vector<double> log_probabilities = head_->log_probabilities(values);
      std::ranges::transform(log_probabilities, record,
                             [](double x) { return static_cast<float>(std::exp(x)); });
    } else {
      std::ranges::copy(values, record);
    }
  }
}

template class ReadoutStage<float>;
template class ReadoutStage<bfloat16>;

}  // namespace longstrand
