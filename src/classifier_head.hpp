// The classifier on a pooled record: logits = W pooled + bias. A record's worth of work, in double.
#pragma once

#include <span>
#include <vector>

#include "src/model.hpp"

namespace longstrand {

class ClassifierHead {
 public:
  /// The model must outlive it, and have a classifier.
  explicit ClassifierHead(const Model& model);

  std::int64_t classes() const { return weight_.shape[0]; }
  /// pooled [D] -> log probabilities [classes].
  std::vector<double> log_probabilities(std::span<const float> pooled) const;
  /// Gradients of -log_probabilities[label]: d_pooled [D] overwritten; the head's own added to `gradients`.
  void backward(std::span<const float> pooled, std::span<const double> log_probabilities, std::int32_t label,
                std::span<float> d_pooled, ParameterStore& gradients) const;

 private:
  View<const float, 2> weight_;
  View<const float, 1> bias_;
};

}  // namespace longstrand
