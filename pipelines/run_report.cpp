#include "pipelines/run_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "io/multiqc.hpp"

namespace longstrand::pipelines {
namespace {

constexpr std::size_t kPlottedPoints = 1000;

// The metrics of a run: curves over the steps, and sums.
struct History {
  std::map<std::string, io::Curve> curves;
  std::int64_t steps = 0;
  std::int64_t tokens = 0;
  double seconds = 0;
};

History read_history(const std::string& path) {
  History history;
  std::ifstream file(path);
  for (std::string text; std::getline(file, text);) {
    const auto line = nlohmann::json::parse(text);
    history.steps = line.at("step");
    const std::int64_t tokens = line.at("tokens");
    history.tokens += tokens;
    history.seconds += static_cast<double>(tokens) / line.at("tokens_per_second").get<double>();
    for (const char* name : {"loss", "valid_loss", "valid_accuracy"}) {
      if (!line.contains(name) || !line[name].is_number()) continue;
      history.curves[name].emplace_back(static_cast<double>(history.steps), line[name].get<double>());
    }
  }
  return history;
}

// Means over neighbours, so that a long run's picture stays small and readable.
io::Curve thinned(const io::Curve& curve) {
  const std::size_t group = (curve.size() + kPlottedPoints - 1) / kPlottedPoints;
  io::Curve result;
  for (std::size_t begin = 0; begin < curve.size(); begin += group) {
    const std::size_t end = std::min(begin + group, curve.size());
    double sum = 0;
    for (std::size_t i = begin; i < end; ++i) sum += curve[i].second;
    result.emplace_back(curve[end - 1].first, sum / static_cast<double>(end - begin));
  }
  return result;
}

// Rows and curves carry the run's name: MultiQC merges the sections of several runs into one.
std::string run_name(const RunFolder& run) {
  return std::filesystem::canonical(run.path()).filename().string();
}

void write_loss(const RunFolder& run, const std::string& name, const History& history) {
  std::map<std::string, io::Curve> curves;
  for (const auto& [metric, label] : {std::pair("loss", "training"), std::pair("valid_loss", "validation")}) {
    if (const auto found = history.curves.find(metric); found != history.curves.end()) {
      curves[fmt::format("{} {}", run_name(run), label)] = thinned(found->second);
    }
  }
  io::write_multiqc_line_graph(
      run.path().string(),
      {.id = fmt::format("{}_loss", name),
       .name = fmt::format("Loss ({})", name),
       .description = "Mean cross entropy of the training batches and of the validation data."},
      "step", "loss (nats)", curves);
}

void write_table(const RunFolder& run, const std::string& name, const History& history) {
  nlohmann::ordered_json row = {{"steps", history.steps},
                                {"tokens", history.tokens},
                                {"tokens per second", static_cast<double>(history.tokens) / history.seconds}};
  for (const auto& [metric, curve] : history.curves)
    row[fmt::format("last {}", metric)] = curve.back().second;
  io::write_multiqc_table(run.path().string(),
                          {.id = fmt::format("{}_run", name),
                           .name = fmt::format("Run ({})", name),
                           .description = "What was trained and how fast, from metrics.jsonl."},
                          {{run_name(run), row}});
}

}  // namespace

void write_run_report(const RunFolder& run, const std::string& name) {
  const auto history = read_history(run.file("metrics.jsonl"));
  if (history.steps == 0) return;
  write_loss(run, name, history);
  write_table(run, name, history);
  const auto accuracy = history.curves.find("valid_accuracy");
  if (accuracy == history.curves.end()) return;
  io::write_multiqc_line_graph(run.path().string(),
                               {.id = fmt::format("{}_accuracy", name),
                                .name = fmt::format("Accuracy ({})", name),
                                .description = "Share of the validation data that is predicted right."},
                               "step", "accuracy",
                               {{run_name(run) + " validation", thinned(accuracy->second)}});
}

}  // namespace longstrand::pipelines
