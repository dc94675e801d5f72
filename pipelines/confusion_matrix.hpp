// How well predicted classes agree with true ones.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace longstrand::pipelines {

class ConfusionMatrix {
 public:
  /// Classes are positions in `labels`.
  explicit ConfusionMatrix(std::vector<std::string> labels);

  void add(std::int64_t truth, std::int64_t predicted);

  const std::vector<std::string>& labels() const { return labels_; }
  std::int64_t count(std::int64_t truth, std::int64_t predicted) const;
  std::int64_t total() const { return total_; }

  /// Share of samples on the diagonal; 0 without samples.
  double accuracy() const;
  /// Of what was predicted to be of the class, the share that is; 0 where nothing was.
  double precision(std::int64_t label) const;
  /// Of what is of the class, the share predicted to be; 0 where nothing is.
  double recall(std::int64_t label) const;
  /// 2 TP / (2 TP + FP + FN); 0 where there is neither a true nor a predicted sample.
  double f1(std::int64_t label) const;
  /// Mean of f1 over the classes that are the truth or the prediction of any sample, as scikit-learn takes
  /// it.
  double macro_f1() const;

  /// {samples, accuracy, macro_f1, classes: [{label, samples, precision, recall, f1}], confusion:
  /// [truth][predicted]}
  nlohmann::json to_json() const;

 private:
  std::int64_t row_sum(std::int64_t truth) const;
  std::int64_t column_sum(std::int64_t predicted) const;

  std::vector<std::string> labels_;
  std::vector<std::int64_t> counts_;  // [truth, predicted]
  std::int64_t total_ = 0;
};

}  // namespace longstrand::pipelines
