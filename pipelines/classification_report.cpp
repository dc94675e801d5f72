#include "pipelines/classification_report.hpp"

#include <fmt/format.h>

#include <cctype>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/atomic_file.hpp"
#include "io/json_text.hpp"
#include "io/multiqc.hpp"
#include "pipelines/logging.hpp"

namespace longstrand::pipelines {
namespace {

namespace fs = std::filesystem;

// The sections of one table in a report that may show several.
struct Report {
  std::string folder;
  std::string id;    // as MultiqcSection asks
  std::string name;  // the table's file name without its extension
};

Report report_of(const fs::path& table) {
  Report report{.folder = table.has_parent_path() ? table.parent_path().string() : ".",
                .id = "classify_",
                .name = table.stem().string()};
  for (const char letter : report.name) {
    const auto byte = static_cast<unsigned char>(letter);
    report.id += std::isalnum(byte) != 0 ? static_cast<char>(std::tolower(byte)) : '_';
  }
  return report;
}

void write_heatmap(const ConfusionMatrix& confusion, const Report& report) {
  const auto& labels = confusion.labels();
  std::vector<double> shares;  // [truth, predicted], of the true class
  for (std::size_t truth = 0; truth < labels.size(); ++truth) {
    std::int64_t samples = 0;
    for (std::size_t i = 0; i < labels.size(); ++i) samples += confusion.count(truth, i);
    for (std::size_t i = 0; i < labels.size(); ++i) {
      shares.push_back(
          samples > 0 ? static_cast<double>(confusion.count(truth, i)) / static_cast<double>(samples) : 0.0);
    }
  }
  io::write_multiqc_heatmap(
      report.folder,
      {.id = report.id + "_confusion",
       .name = fmt::format("Confusion matrix ({})", report.name),
       .description = "Share of each true class (row) that was given each class (column)."},
      labels, labels, shares);
}

void write_summary(const ConfusionMatrix& confusion, const Report& report) {
  nlohmann::ordered_json rows;
  rows["all"] = {
      {"samples", confusion.total()}, {"recall", confusion.accuracy()}, {"F1", confusion.macro_f1()}};
  for (std::size_t i = 0; i < confusion.labels().size(); ++i) {
    std::int64_t samples = 0;
    for (std::size_t j = 0; j < confusion.labels().size(); ++j) samples += confusion.count(i, j);
    rows[confusion.labels()[i]] = {{"samples", samples},
                                   {"precision", confusion.precision(i)},
                                   {"recall", confusion.recall(i)},
                                   {"F1", confusion.f1(i)}};
  }
  io::write_multiqc_table(
      report.folder,
      {.id = report.id + "_summary",
       .name = fmt::format("Classification ({})", report.name),
       .description = "By true class; over all samples recall is the accuracy, F1 the macro-F1."},
      rows);
}

}  // namespace

void log_confusion(const ConfusionMatrix& confusion) {
  const auto& labels = confusion.labels();
  spdlog::info("accuracy {:.4f}, macro-F1 {:.4f} over {} samples", confusion.accuracy(), confusion.macro_f1(),
               confusion.total());
  std::size_t width = 5;
  for (const std::string& label : labels) width = std::max(width, label.size());
  std::string line = fmt::format("{:<{}}", "truth", width);
  for (std::size_t i = 0; i < labels.size(); ++i) line += fmt::format(" {:>7}", fmt::format("[{}]", i));
  spdlog::info(line + "   predicted");
  for (std::size_t truth = 0; truth < labels.size(); ++truth) {
    line = fmt::format("{:<{}}", labels[truth], width);
    for (std::size_t i = 0; i < labels.size(); ++i) line += fmt::format(" {:>7}", confusion.count(truth, i));
    spdlog::info("{}   [{}]", line, truth);
  }
}

void write_classification_report(const ConfusionMatrix& confusion, const nlohmann::json& provenance,
                                 const std::string& table) {
  const Report report = report_of(table);
  nlohmann::json metrics = confusion.to_json();
  metrics.update(provenance);
  io::write_file(fs::path(table).replace_extension(".metrics.json").string(),
                 io::json_text(metrics, 2) + "\n");
  write_heatmap(confusion, report);
  write_summary(confusion, report);
}

}  // namespace longstrand::pipelines
