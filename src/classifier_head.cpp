#include "src/classifier_head.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace longstrand {

ClassifierHead::ClassifierHead(const Model& model)
    : weight_(model.parameters().matrix(kHeadWeight)), bias_(model.parameters().flat(kHeadBias)) {}

std::vector<double> ClassifierHead::log_probabilities(std::span<const float> pooled) const {
  std::vector<double> logits(static_cast<std::size_t>(classes()));
  for (std::int64_t c = 0; c < classes(); ++c) {
    double sum = bias_.data[c];
    const float* row = weight_.at(c);
    for (std::size_t d = 0; d < pooled.size(); ++d) sum += static_cast<double>(row[d]) * pooled[d];
    logits[c] = sum;
  }
  const double largest = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const double logit : logits) total += std::exp(logit - largest);
  for (double& logit : logits) logit -= largest + std::log(total);
  return logits;
}

void ClassifierHead::backward(std::span<const float> pooled, std::span<const double> log_probabilities,
                              std::int32_t label, std::span<float> d_pooled,
                              ParameterStore& gradients) const {
  assert(label >= 0 && label < classes());
  const View<float, 2> d_weight = gradients.matrix(kHeadWeight);
  const View<float, 1> d_bias = gradients.flat(kHeadBias);
  std::fill(d_pooled.begin(), d_pooled.end(), 0.0F);
  for (std::int64_t c = 0; c < classes(); ++c) {
    const auto d_logit = static_cast<float>(std::exp(log_probabilities[c]) - (c == label ? 1.0 : 0.0));
    d_bias.data[c] += d_logit;
    for (std::size_t d = 0; d < pooled.size(); ++d) {
      d_weight.at(c)[d] += d_logit * pooled[d];
      d_pooled[d] += d_logit * weight_.at(c)[d];
    }
  }
}

}  // namespace longstrand
