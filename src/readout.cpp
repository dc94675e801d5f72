#include "src/readout.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/cross_entropy.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/next_token.hpp"
#include "kernels/strands.hpp"
#include "kernels/transfer.hpp"
#include "src/strands.hpp"
#include "src/vocabulary.hpp"

namespace longstrand {
namespace {

/// loss [L * T] of a chunk's tokens to the sums of their lanes.
void add_losses(View<const float, 1> loss, View<const std::int64_t, 1> valid, View<double, 2> sums,
                Context& context) {
  const std::int64_t lanes = valid.shape[0];
  const View<const float, 3> of_lanes(loss.data, {lanes, loss.shape[0] / lanes, 1}, loss.device);
  pooling_forward(of_lanes, valid, Pooling::mean, sums, context);
}

bool any(const std::vector<std::uint8_t>& flags) {
  return std::ranges::any_of(flags, [](std::uint8_t flag) { return flag != 0; });
}

}  // namespace

template <class T>
ReadoutStage<T>::ReadoutStage(const Model& model, const ParameterStore& weights, const Backbone<T>& backbone,
                              const InferenceOptions& options, Context& context)
    : backbone_(backbone),
      options_(options),
      pooling_(options.pooling),
      strands_(strands_of(model.config())) {
  if (options_.readout == Readout::probabilities) {
    head_.emplace(weights, context);
    pooling_ = model.classifier()->pooling;
    options_.layer = InferenceOptions::kFinal;
  }
  if (options_.readout == Readout::log_likelihood || options_.readout == Readout::masked_log_likelihood) {
    options_.layer = InferenceOptions::kLogits;
  }
  layers_ = options_.layer > 0 ? static_cast<int>(options_.layer) : backbone.layers();
  features_width_ = needs_logits() ? backbone.vocabulary() : backbone.d_model();
  if (needs_logits() && strands_ == 2) facing_ = facing_logits(backbone.vocabulary(), context);
}

template <class T>
bool ReadoutStage<T>::pools() const {
  return options_.readout == Readout::pooled || options_.readout == Readout::probabilities;
}

/// Vectors of records are joined when they are there, those of tokens with the tokens that they face.
template <class T>
bool ReadoutStage<T>::joins_strands() const {
  return strands_ == 2 && (needs_logits() || !pools());
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
View<float, 3> ReadoutStage<T>::features(View<float, 3> residual, View<const T, 3> normed, Arena& arena,
                                         Context& context) const {
  if (options_.layer > 0) return residual;
  const auto features = arena.take<float, 3>({normed.shape[0], normed.shape[1], features_width_});
  if (needs_logits()) {
    backbone_.logits(rows(normed), rows(features), context);
  } else if constexpr (std::is_same_v<T, float>) {
    copy(normed, features, context);
  } else {
    convert(rows(normed), rows(features), context);
  }
  return features;
}

/// Logits are sums over the strands, vectors of tokens their means.
template <class T>
void ReadoutStage<T>::join_strands(View<float, 4> features, View<const std::int64_t, 1> length,
                                   Context& context) const {
  add_facing_strands(features, length, facing_.view(), needs_logits() ? 1.0F : 0.5F, context);
}

template <class T>
void ReadoutStage<T>::compute(const InferenceChunk<T>& chunk, Arena& arena, ReadoutLanding& landing,
                              Context& context) {
  const bool ends = any(chunk.batch.ends);
  const std::int64_t lanes = chunk.normed.shape[0];
  View<float, 3> features = chunk.joined;
  if (pools() && options_.layer == InferenceOptions::kFinal) {
    pool<T>(chunk, chunk.normed, context);
  } else if (features.empty()) {
    features = this->features(chunk.residual, chunk.normed, arena, context);
  }
  switch (options_.readout) {
    case Readout::tokens:
      landing.tokens.start(first_strands(features, arena, context), context);
      break;
    case Readout::log_likelihood:
      add_surprisal(chunk, features, context);
      if (ends) landing.surprisal.start(surprisal_.view().slice(0, lanes), context);
      break;
    case Readout::masked_log_likelihood:
      add_masked_surprisal(chunk, features, context);
      if (ends) landing.surprisal.start(surprisal_.view().slice(0, lanes), context);
      break;
    case Readout::pooled:
    case Readout::probabilities:
      if (!features.empty()) pool<float>(chunk, features, context);
      if (ends) landing.pooled.start(pooled_.view().slice(0, lanes), context);
  }
}

template <class T>
template <class E>
void ReadoutStage<T>::pool(const InferenceChunk<T>& chunk, View<const E, 3> features, Context& context) {
  const std::int64_t lanes = features.shape[0];
  reserve_lanes(pooled_, lanes, features_width_, context);
  const View<double, 2> pooled = pooled_.view().slice(0, lanes);
  if (!chunk.starts.empty()) fill_marked_rows(pooled, chunk.starts, pooling_identity(pooling_), context);
  pooling_forward<E>(features, chunk.valid, pooling_, pooled, context);
}

/// A record's rows of both strands joined stand in its first lane.
template <class T>
View<const float, 3> ReadoutStage<T>::first_strands(View<const float, 3> features, Arena& arena,
                                                    Context& context) const {
  if (strands_ == 1) return features;
  View<const float, 3> first = features;
  first.shape[0] /= strands_;
  first.stride[0] *= strands_;
  const auto packed = arena.take<float, 3>(first.shape);
  copy(first, packed, context);
  return packed;
}

/// Of the chunk's lanes, so far; 0 where a record starts.
template <class T>
View<double, 2> ReadoutStage<T>::surprisal_of(const InferenceChunk<T>& chunk, Context& context) {
  const std::int64_t lanes = chunk.normed.shape[0];
  reserve_lanes(surprisal_, lanes, 1, context);
  const View<double, 2> surprisal = surprisal_.view().slice(0, lanes);
  if (!chunk.starts.empty()) fill_marked_rows(surprisal, chunk.starts, 0.0, context);
  return surprisal;
}

template <class T>
void ReadoutStage<T>::add_masked_surprisal(const InferenceChunk<T>& chunk, View<const float, 3> logits,
                                           Context& context) {
  const Arena::Scope scope(context.scratch);
  const auto loss = context.scratch.take<float, 1>(chunk.targets.shape);
  cross_entropy_forward({.logits = rows(logits), .target = chunk.targets}, loss, context);
  add_losses(loss, chunk.valid, surprisal_of(chunk, context), context);
}

/// The chunk's tokens but for its first: each is predicted by the row before it.
template <class T>
void ReadoutStage<T>::add_surprisal(const InferenceChunk<T>& chunk, View<const float, 3> logits,
                                    Context& context) {
  const auto [lanes, length, vocabulary] = logits.shape;
  reserve_lanes(last_logits_, lanes, vocabulary, context);
  const View<double, 2> surprisal = surprisal_of(chunk, context);
  add_surprisal_of_first_tokens(chunk, context);

  const Arena::Scope scope(context.scratch);
  const std::vector<std::int32_t> unknown(static_cast<std::size_t>(lanes), -1);  // the next chunk scores it
  const auto target = context.scratch.take<std::int32_t, 1>({lanes * length});
  const auto loss = context.scratch.take<float, 1>({lanes * length});
  next_token_targets(chunk.tokens, upload(unknown, context.scratch, context), chunk.valid, kPredictedTokens,
                     target, context);
  cross_entropy_forward({.logits = rows(logits), .target = target}, loss, context);
  add_losses(loss, chunk.valid, surprisal, context);
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
    case Readout::masked_log_likelihood:
      result.log_likelihood.resize(static_cast<std::size_t>(batch.lanes));
      if (any(batch.ends)) {
        const View<const double, 2> surprisal = landing.surprisal.wait();
        for (std::int64_t b = 0; b < batch.lanes; ++b) {
          result.log_likelihood[b] = -*surprisal.at(b * strands_);
        }
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
    std::ranges::fill(values, 0.0F);  // what an empty record is left with: it has nothing to pool
    const auto length = static_cast<double>(length_[b]);
    const double scale = 1.0 / (strands_ * (pooling_ == Pooling::mean ? length : 1.0));
    for (std::int64_t i = 0; i < features_width_ && length_[b] > 0; ++i) {
      double sum = 0;
      for (int strand = 0; strand < strands_; ++strand) sum += *pooled.at(b * strands_ + strand, i);
      values[i] = static_cast<float>(sum * scale);
    }
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
