#include "pipelines/classify.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "io/atomic_file.hpp"
#include "io/input_error.hpp"
#include "io/tsv_writer.hpp"
#include "pipelines/classification_report.hpp"
#include "pipelines/record_options.hpp"
#include "pipelines/record_pass.hpp"

namespace longstrand::pipelines {
namespace {

struct ClassifyOptions {
  RecordOptions records;
  std::string output;
  std::string truth;
};

void add_options(CommandLine& line, ClassifyOptions& options) {
  options.records.add_to(line, "as trained");
  options.records.add_strands_to(line, "Classes", "a record's probabilities and its reverse complement's");
  // clang-format off
  line.group("Output").add_options()
      ("output,o", po::value(&options.output)->default_value("-")->value_name("OUT.tsv"),
           "where the table goes; an evaluation also writes OUT.metrics.json and classify_OUT_*_mqc files beside it")
      ("truth", po::value(&options.truth)->value_name("MANIFEST.tsv"),
           "evaluate: path and label of every input; without INPUT, its paths are the input. --split evaluates too");
  // clang-format on
  line.example("longstrand classify -m run/best data/genomes/*.fa.gz -o classes.tsv");
  line.example("longstrand classify -m run/best --split run/split.tsv --only test -o heldout.tsv");
}

std::vector<std::string> labels_of(const std::vector<std::string>& paths, const Manifest& manifest,
                                   const std::string& manifest_path) {
  namespace fs = std::filesystem;
  std::map<fs::path, std::string> label_of;
  for (const ManifestEntry& entry : manifest.entries)
    label_of[fs::weakly_canonical(entry.path)] = entry.label;
  std::vector<std::string> labels;
  for (const std::string& path : paths) {
    const auto found = label_of.find(fs::weakly_canonical(path));
    if (found == label_of.end()) {
      throw io::InputError(fmt::format("'{}' has no label in '{}': add a line for it", path, manifest_path));
    }
    labels.push_back(found->second);
  }
  return labels;
}

// The true label of every file, in the order of the input, if they are known. Without INPUT, takes the
// truth's paths.
std::optional<std::vector<std::string>> true_labels(ClassifyOptions& options) {
  RecordOptions& records = options.records;
  if (!records.split.empty()) {
    std::vector<std::string> labels;
    for (const SplitFile& file : records.split_files()) labels.push_back(file.label);
    return labels;
  }
  if (options.truth.empty()) return std::nullopt;
  const Manifest manifest = read_manifest(options.truth);
  if (records.input.paths.empty()) {
    for (const ManifestEntry& entry : manifest.entries) records.input.paths.push_back(entry.path);
  }
  return labels_of(records.input.paths, manifest, options.truth);
}

// Labels as classes of the model.
std::vector<std::int64_t> classes_of(const std::vector<std::string>& labels,
                                     const std::vector<std::string>& known) {
  std::vector<std::int64_t> classes;
  for (const std::string& label : labels) {
    const auto found = std::ranges::find(known, label);
    if (found == known.end()) {
      throw io::InputError(
          fmt::format("the label '{}' is none of the model's classes ({})", label, fmt::join(known, ", ")));
    }
    classes.push_back(found - known.begin());
  }
  return classes;
}

std::vector<std::string> columns(const std::vector<std::string>& labels, bool with_truth) {
  std::vector<std::string> columns = {"record", "start", "end", "label"};
  for (const std::string& label : labels) columns.push_back("p_" + label);
  if (with_truth) columns.push_back("truth");
  return columns;
}

// Windows as the classifier was trained on, unless the user asks for others.
void take_windows_of(const ClassifierSpec& classifier, const CommandLine& line, RecordOptions& records) {
  if (line.given("window") || !records.split.empty()) return;
  records.window = classifier.window_bases;
  if (!line.given("stride")) records.stride = classifier.window_bases > 0 ? classifier.stride_bases : 0;
}

// One row a record. `true_classes`, by file, are empty where the truth is not known, and then so is the
// result.
ConfusionMatrix write_table(Inference& inference, const CommandLine& line, const ClassifyOptions& options,
                            const std::vector<std::string>& labels,
                            const std::vector<std::int64_t>& true_classes) {
  const bool evaluates = !true_classes.empty();
  io::TsvWriter table(options.output, columns(labels, evaluates));
  ConfusionMatrix confusion(labels);
  const auto add_row = [&](const ChunkResult& result, std::int64_t lane,
                           std::span<const float> probabilities) {
    const io::RecordInfo& record = record_of(result, lane);
    const auto predicted = std::ranges::max_element(probabilities) - probabilities.begin();
    table.cell(record.name).cell(record.begin).cell(record.begin + record.length).cell(labels[predicted]);
    for (const float probability : probabilities) table.cell(probability);
    if (evaluates) {
      const std::int64_t truth = true_classes[origin_of(result.batch).file_index[lane]];
      confusion.add(truth, predicted);
      table.cell(labels[truth]);
    }
    table.end_row();
  };
  const RecordPass pass{.label = "classifying", .copies = {.both_strands = options.records.both_strands()}};
  run_records(inference, options.records.open(line.common(), chunks_for(inference, pass)), pass,
              for_each_mean(pass.copies, add_row));
  table.commit();
  return confusion;
}

}  // namespace

void classify(const std::vector<std::string>& arguments) {
  ClassifyOptions options;
  CommandLine line(
      "classify", "-m MODEL INPUT... [-o OUT.tsv]",
      "Writes the class of every record or window: a table with the columns record, start, end (0-based,\n"
      "half-open), label and p_<class> for every class, and truth where it is known.");
  add_options(line, options);
  if (!line.parse(arguments)) return;
  if (!options.records.split.empty() && !options.truth.empty()) {
    throw UsageError("--split holds the truth: leave out --truth");
  }
  const std::optional<std::vector<std::string>> truth = true_labels(options);

  const Model model = Model::load(options.records.model);
  if (!model.classifier()) {
    throw std::runtime_error("'" + options.records.model +
                             "' has no classifier: train one with longstrand finetune");
  }
  take_windows_of(*model.classifier(), line, options.records);
  options.records.check(line);
  options.records.check(model.config());
  const std::vector<std::string>& labels = model.classifier()->labels;
  std::vector<std::int64_t> true_classes;  // by file
  if (truth) true_classes = classes_of(*truth, labels);

  Inference inference(model, line.execution().options, {.readout = Readout::probabilities});
  const ConfusionMatrix confusion = write_table(inference, line, options, labels, true_classes);
  if (!truth) return;
  log_confusion(confusion);
  if (io::is_stream(options.output)) return;
  write_classification_report(confusion,
                              {{"model_fingerprint", model.fingerprint()},
                               {"command_line", line.text()},
                               {"version", LONGSTRAND_VERSION}},
                              options.output);
}

}  // namespace longstrand::pipelines
