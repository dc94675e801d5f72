#include "src/backbone.hpp"

#include <algorithm>

#include "kernels/embedding.hpp"
#include "kernels/transfer.hpp"

namespace longstrand {

std::optional<ParameterStore> copy_sorted_to_gpu(const ModelConfig& config, const ParameterStore& weights,
                                                 Context& context) {
  const auto sort_channels = find_mixer(config.mixer).sort_channels;
  if (context.device == weights.device() || sort_channels == nullptr) return copy_to_gpu(weights, context);
  ParameterStore sorted = weights.like();
  std::copy_n(weights.all().data, weights.all().size(), sorted.all().data);
  for (std::int64_t i = 0; i < config.n_layer; ++i) sort_channels(config, layer_prefix(i) + "mixer.", sorted);
  return copy_to_gpu(sorted, context);
}

template <class T>
Backbone<T>::Backbone(const ModelConfig& config, const ParameterStore& weights, bool for_backward,
                      Context& context)
    : d_model_(config.d_model),
      norm_epsilon_(static_cast<float>(config.norm_epsilon)),
      for_backward_(for_backward) {
  embedding_ = weights.matrix(kEmbeddingWeight);
  lm_head_weight_ = weights.matrix(config.tie_embeddings ? kEmbeddingWeight : kLmHeadWeight);
  for (std::int64_t i = 0; i < config.n_layer; ++i) {
    const std::string prefix = layer_prefix(i);
    norm_weights_.push_back(weights.flat(prefix + "norm.weight"));
    mixers_.push_back(make_mixer<T>(config, prefix + "mixer.", weights));
  }
  norm_weights_.push_back(weights.flat(kFinalNormWeight));
  normed_embedding_ = Array<T, 2>(embedding_.shape, context.device);
  prepare(context);
}

template <class T>
void Backbone<T>::prepare(Context& context) {
  for (const auto& mixer : mixers_) mixer->prepare(for_backward_, context);
  lm_head_.pack(lm_head_weight_, for_backward_, context);
  const Arena::Scope scope(context.scratch);
  const auto total = context.scratch.take<float, 2>(embedding_.shape);
  rms_norm_forward<T>(embedding_, {}, norm_weights_[0], norm_epsilon_, {total, normed_embedding_.view()},
                      context);
}

template <class T>
std::int64_t Backbone<T>::state_floats() const {
  return mixers_.front()->state_floats();
}

template <class T>
std::int64_t Backbone<T>::saved_bytes_per_token() const {
  const Mixer<T>& mixer = *mixers_.front();
  const std::int64_t residual_and_normed_bytes = d_model_ * std::int64_t{sizeof(float) + sizeof(T)};
  const std::int64_t projected_bytes = mixer.projected_width() * std::int64_t{sizeof(T)};
  return layers() * (residual_and_normed_bytes + projected_bytes + mixer.saved_bytes_per_token());
}

template <class T>
void Backbone<T>::embed(View<const std::uint8_t, 2> tokens, View<float, 3> residual, Context& context) const {
  embedding_forward<float>(tokens, embedding_, residual, context);
}

template <class T>
void Backbone<T>::embed(View<const std::uint8_t, 2> tokens, View<float, 3> residual, View<T, 3> normed,
                        Context& context) const {
  embed(tokens, residual, context);
  embedding_forward<T>(tokens, normed_embedding_.view(), normed, context);
}

template <class T>
void Backbone<T>::norm(int index, View<const float, 3> residual, View<const T, 3> hidden,
                       View<float, 3> total, View<T, 3> normed, Context& context, Hidden change) const {
  rms_norm_forward<T>(rows(residual), rows(hidden), norm_weights_[index], norm_epsilon_,
                      {rows(total), rows(normed)}, context, change);
}

template <class T>
ResidualNorm<T> Backbone<T>::residual_norm(int index, View<float, 3> residual, View<T, 3> normed) const {
  return {.residual = rows(residual),
          .weight = norm_weights_[index],
          .epsilon = norm_epsilon_,
          .normed = rows(normed)};
}

template <class T>
void Backbone<T>::layer(int index, View<float, 3> residual, View<T, 3> normed, View<float, 2> state,
                        View<const std::int64_t, 1> valid, const Trail& trail, Context& context) const {
  mixers_[index]->project_and_forward(Direction::forward, normed, {}, state, valid,
                                      residual_norm(index + 1, residual, normed), nullptr, trail, context);
}

template <class T>
void Backbone<T>::layer_kept(int index, Saved& saved, const MixerOutput<T>& output, View<float, 2> state,
                             View<const std::int64_t, 1> valid, Arena& keep, const Trail& trail,
                             Context& context) const {
  const Mixer<T>& mixer = *mixers_[index];
  saved.projected = keep.take<T, 3>({saved.normed.shape[0], saved.normed.shape[1], mixer.projected_width()});
  saved.mixer = mixer.project_and_forward(Direction::forward, saved.normed, saved.projected, state, valid,
                                          output, &keep, trail, context);
}

template <class T>
void Backbone<T>::layer_output(int index, View<float, 3> residual, View<const T, 3> below, View<T, 3> out,
                               View<float, 2> state, View<const std::int64_t, 1> valid, const Trail& trail,
                               Context& context) const {
  const Arena::Scope scope(context.scratch);
  const auto normed = context.scratch.take<T, 3>(out.shape);
  norm(index, residual, below, residual, normed, context);
  mixers_[index]->project_and_forward(Direction::forward, normed, {}, state, valid, out, nullptr, trail,
                                      context);
}

template <class T>
void Backbone<T>::finish(View<const float, 3> residual, View<const T, 3> hidden, View<float, 3> total,
                         View<T, 3> out, Context& context) const {
  norm(layers(), residual, hidden, total, out, context);
}

template <class T>
auto Backbone<T>::finish(View<const float, 3> residual, View<const T, 3> hidden, Context& context) const
    -> Finished {
  const Finished finished{.total = context.scratch.take<float, 3>(hidden.shape),
                          .out = context.scratch.take<T, 3>(hidden.shape)};
  finish(residual, hidden, finished.total, finished.out, context);
  return finished;
}

template <class T>
void Backbone<T>::logits(View<const T, 2> hidden, View<float, 2> logits, Context& context) const {
  linear_forward<T, float>(hidden, lm_head_, logits, context);
}

template <class T>
void Backbone<T>::norm_backward(int index, View<const float, 3> total, View<const T, 3> d_normed,
                                View<float, 3> d_residual, View<T, 3> d_hidden, ParameterStore& gradients,
                                Context& context) const {
  const std::string weight = index == layers() ? kFinalNormWeight : layer_prefix(index) + "norm.weight";
  const RmsNormGradient<T> gradient{.d_out = rows(d_normed),
                                    .d_residual = rows(d_residual),
                                    .d_hidden = rows(d_hidden),
                                    .d_weight = gradients.flat(weight)};
  rms_norm_backward<T>(rows(total), norm_weights_[index], norm_epsilon_, gradient, context);
}

template <class T>
void Backbone<T>::layer_backward(int index, const Saved& saved, View<float, 3> d_residual,
                                 View<T, 3> d_hidden, View<float, 2> d_state,
                                 View<const std::int64_t, 1> valid, ParameterStore& gradients,
                                 Context& context) const {
  const Arena::Scope scope(context.scratch);
  const Mixer<T>& mixer = *mixers_[index];
  const auto d_normed = context.scratch.take<T, 3>(d_hidden.shape);
  const auto d_projected = context.scratch.take<T, 3>(saved.projected.shape);
  mixer.backward(Direction::forward, saved.projected, *saved.mixer, d_hidden, valid, d_state, d_projected,
                 gradients, context);
  mixer.project_backward(Direction::forward, saved.normed, d_projected, d_normed, gradients, context);
  norm_backward(index, saved.residual, d_normed, d_residual, d_hidden, gradients, context);
}

template <class T>
void Backbone<T>::finish_backward(View<const float, 3> total, View<T, 3> d_out, View<float, 3> d_residual,
                                  View<T, 3> d_hidden, ParameterStore& gradients, Context& context) const {
  fill(d_residual, 0.0F, context);
  norm_backward(layers(), total, d_out, d_residual, d_hidden, gradients, context);
}

template <class T>
void Backbone<T>::logits_backward(View<const T, 2> hidden, View<const T, 2> d_logits, View<T, 2> d_hidden,
                                  View<float, 2> d_weight, Context& context) const {
  linear_backward_input<T>(d_logits, lm_head_, d_hidden, GradientMode::overwrite, context);
  linear_backward_weight<T>(d_logits, hidden, d_weight, context);
}

template <class T>
void Backbone<T>::embed_backward(View<const std::uint8_t, 2> tokens, View<const float, 3> d_residual,
                                 ParameterStore& gradients, Context& context) const {
  embedding_backward(tokens, d_residual, gradients.matrix(kEmbeddingWeight), context);
}

template class Backbone<float>;
template class Backbone<bfloat16>;

}  // namespace longstrand
