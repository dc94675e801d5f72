// The classifier on a pooled record: logits = W pooled + bias. A record's worth of work, in double, on the
// host.
#pragma once

#include <span>
#include <vector>

#include "kernels/context.hpp"
#include "src/parameters.hpp"

namespace longstrand {

class ClassifierHead {
 public:
  /// `weights` of a model with a classifier, on any device.
  ClassifierHead(const ParameterStore& weights, Context& context);
  /// After every change of the weights.
  void load(const ParameterStore& weights, Context& context);

  std::int64_t classes() const { return weight_.view().shape[0]; }
  /// pooled [D] -> log probabilities [classes].
  std::vector<double> log_probabilities(std::span<const float> pooled) const;

  void clear_gradient();
  /// Gradients of -log_probabilities[label]: d_pooled [D] overwritten; the head's own added up.
  void backward(std::span<const float> pooled, std::span<const double> log_probabilities, std::int32_t label,
                std::span<float> d_pooled);
  /// What has been added up since clear_gradient().
  void add_gradient_to(ParameterStore& gradients, Context& context) const;

 private:
  Array<float, 2> weight_, d_weight_;  // [classes, D]
  Array<float, 1> bias_, d_bias_;      // [classes]
};

}  // namespace longstrand
