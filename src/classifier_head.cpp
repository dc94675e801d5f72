#include "src/classifier_head.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "kernels/elementwise.hpp"
#include "kernels/transfer.hpp"
#include "src/model.hpp"

namespace longstrand {

ClassifierHead::ClassifierHead(const ParameterStore& weights, Context& context)
    : weight_(weights.matrix(kHeadWeight).shape),
      d_weight_(weight_.view().shape),
      bias_(weights.flat(kHeadBias).shape),
      d_bias_(bias_.view().shape) {
  load(weights, context);
}

void ClassifierHead::load(const ParameterStore& weights, Context& context) {
  copy(weights.matrix(kHeadWeight), weight_.view(), context);
  copy(weights.flat(kHeadBias), bias_.view(), context);
}

std::vector<double> ClassifierHead::log_probabilities(std::span<const float> pooled) const {
  std::vector<double> logits(static_cast<std::size_t>(classes()));
  for (std::int64_t c = 0; c < classes(); ++c) {
    double sum = bias_.view().data[c];
    const float* row = weight_.view().at(c);
    for (std::size_t d = 0; d < pooled.size(); ++d) sum += static_cast<double>(row[d]) * pooled[d];
    logits[c] = sum;
  }
  const double largest = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const double logit : logits) total += std::exp(logit - largest);
  for (double& logit : logits) logit -= largest + std::log(total);
  return logits;
}

void ClassifierHead::clear_gradient() {
  d_weight_.zero();
  d_bias_.zero();
}

void ClassifierHead::backward(std::span<const float> pooled, std::span<const double> log_probabilities,
                              std::int32_t label, std::span<float> d_pooled) {
  assert(label >= 0 && label < classes());
  std::fill(d_pooled.begin(), d_pooled.end(), 0.0F);
  for (std::int64_t c = 0; c < classes(); ++c) {
    const auto d_logit = static_cast<float>(std::exp(log_probabilities[c]) - (c == label ? 1.0 : 0.0));
    const float* weight = weight_.view().at(c);
    float* d_weight = d_weight_.view().at(c);
    d_bias_.view().data[c] += d_logit;
    for (std::size_t d = 0; d < pooled.size(); ++d) {
      d_weight[d] += d_logit * pooled[d];
      d_pooled[d] += d_logit * weight[d];
    }
  }
}

void ClassifierHead::add_gradient_to(ParameterStore& gradients, Context& context) const {
  const Arena::Scope scope(context.scratch);
  const auto add_to = [&](const char* name, const float* values, std::int64_t size) {
    const View<const float, 1> on_host(values, {size});
    add(upload(on_host, context.scratch, context), gradients.flat(name), context);
  };
  add_to(kHeadWeight, d_weight_.view().data, d_weight_.view().size());
  add_to(kHeadBias, d_bias_.view().data, d_bias_.view().size());
}

}  // namespace longstrand
