// What a classifier's user wants to see of a confusion matrix: the log, a JSON file and sections of a MultiQC
// report.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "pipelines/confusion_matrix.hpp"

namespace longstrand::pipelines {

/// Accuracy, macro-F1 and the matrix, line by line.
void log_confusion(const ConfusionMatrix& confusion);

/// Beside `table`, the path of a table OUT.tsv: OUT.metrics.json (ConfusionMatrix::to_json and `provenance`),
/// and the MultiQC sections classify_OUT_confusion and classify_OUT_summary.
void write_classification_report(const ConfusionMatrix& confusion, const nlohmann::json& provenance,
                                 const std::string& table);

}  // namespace longstrand::pipelines
