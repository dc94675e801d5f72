#include "pipelines/inspect.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "io/anndata_summary.hpp"
#include "io/atomic_file.hpp"
#include "io/input_error.hpp"
#include "io/json_text.hpp"
#include "io/sequence_statistics.hpp"
#include "pipelines/command_line.hpp"
#include "pipelines/input_options.hpp"
#include "pipelines/interrupt.hpp"
#include "src/model.hpp"

namespace longstrand::pipelines {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

io::SequenceStatistics statistics_of(const std::string& path, const io::SourceOptions& options) {
  try {
    const auto statistics = io::sequence_statistics(path, options);
    stop_if_interrupted(/*resumable=*/false);  // which ends standard input
    return statistics;
  } catch (const io::InputError&) {
    stop_if_interrupted(/*resumable=*/false);
    throw;
  }
}

Json inspect_sequences(const std::string& path, const io::SourceOptions& options) {
  const auto statistics = statistics_of(path, options);
  return {{"kind", io::kind_name(statistics.kind)},
          {"records", statistics.records},
          {"bases", statistics.bases},
          {"a", statistics.a},
          {"c", statistics.c},
          {"g", statistics.g},
          {"t", statistics.t},
          {"n", statistics.n},
          {"other", statistics.other},
          {"soft_masked", statistics.soft_masked},
          {"longest", statistics.longest}};
}

Json inspect_model(const fs::path& folder) {
  const auto model = Model::load(folder);
  const auto& config = model.config();
  Json json = {{"kind", "model"},
               {"architecture", describe(config)},
               {"mixer", config.mixer},
               {"d_model", config.d_model},
               {"layers", config.n_layer},
               {"d_state", config.d_state},
               {"vocabulary", config.vocab_size},
               {"parameters", model.parameter_count()},
               {"fingerprint", model.fingerprint()}};
  if (const auto& classifier = model.classifier()) {
    json["labels"] = classifier->labels;
    json["pooling"] = pooling_name(classifier->pooling);
    json["window"] = classifier->window_bases;
    json["stride"] = classifier->stride_bases;
  }
  return json;
}

// The last value of a metric and the least one, with its step.
void add_metric(Json& json, const Json& line, const std::string& name) {
  if (!line.contains(name) || !line[name].is_number()) return;
  const double value = line[name];
  json[fmt::format("last_{}", name)] = value;
  const auto best = fmt::format("best_{}", name);
  if (!json.contains(best) || value < json[best].get<double>()) {
    json[best] = value;
    json[best + "_step"] = line.value("step", 0);
  }
}

Json inspect_run(const fs::path& folder) {
  const auto path = (folder / "metrics.jsonl").string();
  std::ifstream file(path);
  if (!file) throw io::InputError(fmt::format("cannot open '{}'", path));
  Json json = {{"kind", "run"}, {"steps", 0}, {"tokens", 0}};
  for (std::string text; std::getline(file, text) && !file.eof();) {  // eof: a line that is being written
    const auto line = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!line.is_object())
      throw io::InputError(fmt::format("'{}' holds a line that is no JSON object", path));
    json["steps"] = line.value("step", 0);
    json["tokens"] = json["tokens"].get<std::int64_t>() + line.value("tokens", std::int64_t{0});
    add_metric(json, line, "loss");
    add_metric(json, line, "valid_loss");
  }
  return json;
}

Json inspect_embeddings(const std::string& path) {
  const auto summary = io::summarize_anndata(path);
  Json json = {{"kind", "embeddings"},
               {"rows", summary.n_obs},
               {"width", summary.n_var},
               {"obs", summary.obs_columns},
               {"uns", Json::object()}};
  for (const auto& [name, value] : summary.uns) {
    std::visit([&](const auto& scalar) { json["uns"][name] = scalar; }, value);
  }
  return json;
}

Json inspect_path(const std::string& path, const io::SourceOptions& options) {
  if (fs::is_directory(path)) {
    if (fs::exists(fs::path(path) / "config.json")) return inspect_model(path);
    if (fs::exists(fs::path(path) / "metrics.jsonl")) return inspect_run(path);
    throw io::InputError(fmt::format(
        "'{}' is neither a model (config.json) nor a run (metrics.jsonl); name a file or such a folder",
        path));
  }
  return path != "-" && io::is_hdf5(path) ? inspect_embeddings(path) : inspect_sequences(path, options);
}

std::string cell(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_structured()) return value.dump();
  std::string text;
  for (const auto& [key, element] : value.items()) {
    if (!text.empty()) text += ',';
    text += value.is_object() ? key + '=' + cell(element) : cell(element);
  }
  return text.empty() ? "." : text;
}

// A tab-separated line, under a header where it differs from that of the line before.
std::string table_line(const Json& row, std::string& header) {
  std::vector<std::string> names;
  std::vector<std::string> cells;
  for (const auto& [name, value] : row.items()) {
    names.push_back(name);
    cells.push_back(cell(value));
  }
  const auto line = fmt::format("{}\n", fmt::join(cells, "\t"));
  auto line_header = fmt::format("{}\n", fmt::join(names, "\t"));
  if (line_header == header) return line;
  header = std::move(line_header);
  return header + line;
}

}  // namespace

void inspect(const std::vector<std::string>& arguments) {
  CommandLine line(
      "inspect", "[--json] PATH...",
      "Says what is in sequence files, model folders, run folders and embeddings (.h5ad), one line each\n"
      "under a header of what the columns are.");
  std::vector<std::string> paths;
  ReadingOptions reading;
  bool as_json = false;
  line.positional("path", po::value(&paths)->required());
  line.group("Options").add_options()("json", po::bool_switch(&as_json), "one JSON array of objects")(
      "reference,f", po::value(&reading.reference)->value_name("REF.fa"),
      "reference of CRAM files, with its .fai");
  line.example("longstrand inspect data/genomes/*.fa.gz");
  line.example("longstrand inspect --json run run/model");
  if (!line.parse(arguments)) return;

  const io::SourceOptions options = reading.source_options(line.common());
  io::AtomicFile output("-");
  Json all = Json::array();
  std::string header;
  for (const auto& path : paths) {
    stop_if_interrupted(/*resumable=*/false);
    Json row = {{"path", path}};
    row.update(inspect_path(path, options));
    if (as_json) {
      all.push_back(std::move(row));
    } else {
      output.write(table_line(row, header));
      output.flush();
    }
  }
  if (as_json) output.write(io::json_text(all, 2) + '\n');
  output.commit();
}

}  // namespace longstrand::pipelines
