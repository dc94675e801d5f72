#include "pipelines/confusion_matrix.hpp"

#include <cassert>
#include <nlohmann/json.hpp>
#include <utility>

namespace longstrand::pipelines {

namespace {

double ratio(std::int64_t part, std::int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0.0;
}

}  // namespace

ConfusionMatrix::ConfusionMatrix(std::vector<std::string> labels)
    : labels_(std::move(labels)), counts_(labels_.size() * labels_.size()) {}

void ConfusionMatrix::add(std::int64_t truth, std::int64_t predicted) {
  const auto classes = static_cast<std::int64_t>(labels_.size());
  assert(truth >= 0 && truth < classes && predicted >= 0 && predicted < classes);
  ++counts_[truth * classes + predicted];
  ++total_;
}

std::int64_t ConfusionMatrix::count(std::int64_t truth, std::int64_t predicted) const {
  return counts_[truth * static_cast<std::int64_t>(labels_.size()) + predicted];
}

std::int64_t ConfusionMatrix::row_sum(std::int64_t truth) const {
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < labels_.size(); ++i) sum += count(truth, i);
  return sum;
}

std::int64_t ConfusionMatrix::column_sum(std::int64_t predicted) const {
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < labels_.size(); ++i) sum += count(i, predicted);
  return sum;
}

double ConfusionMatrix::accuracy() const {
  std::int64_t right = 0;
  for (std::size_t i = 0; i < labels_.size(); ++i) right += count(i, i);
  return ratio(right, total_);
}

double ConfusionMatrix::precision(std::int64_t label) const {
  return ratio(count(label, label), column_sum(label));
}

double ConfusionMatrix::recall(std::int64_t label) const {
  return ratio(count(label, label), row_sum(label));
}

double ConfusionMatrix::f1(std::int64_t label) const {
  return ratio(2 * count(label, label), row_sum(label) + column_sum(label));
}

double ConfusionMatrix::macro_f1() const {
  double sum = 0;
  std::int64_t present = 0;
  for (std::size_t i = 0; i < labels_.size(); ++i) {
    if (row_sum(i) + column_sum(i) == 0) continue;
    sum += f1(i);
    ++present;
  }
  return present > 0 ? sum / static_cast<double>(present) : 0.0;
}

nlohmann::json ConfusionMatrix::to_json() const {
  nlohmann::json classes = nlohmann::json::array();
  nlohmann::json confusion = nlohmann::json::array();
  for (std::size_t i = 0; i < labels_.size(); ++i) {
    classes.push_back({{"label", labels_[i]},
                       {"samples", row_sum(i)},
                       {"precision", precision(i)},
                       {"recall", recall(i)},
                       {"f1", f1(i)}});
    nlohmann::json row = nlohmann::json::array();
    for (std::size_t j = 0; j < labels_.size(); ++j) row.push_back(count(i, j));
    confusion.push_back(std::move(row));
  }
  return {{"samples", total_},
          {"accuracy", accuracy()},
          {"macro_f1", macro_f1()},
          {"classes", std::move(classes)},
          {"confusion", std::move(confusion)}};
}

}  // namespace longstrand::pipelines
