#include "pipelines/classify.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "io/input_error.hpp"
#include "io/tsv_writer.hpp"
#include "pipelines/classification_report.hpp"
#include "pipelines/record_options.hpp"
#include "pipelines/record_pass.hpp"
#include "pipelines/split_files.hpp"

namespace longstrand::pipelines {
namespace {

struct ClassifyOptions {
  RecordOptions records;
  std::string output;
  std::string truth;
  std::string split;
  std::string only;
};

void add_options(CommandLine& line, ClassifyOptions& options) {
  options.records.add_to(line, {.inputs_required = false, .window_default = "as trained"});
  // clang-format off
  line.group("Evaluation").add_options()
      ("truth", po::value(&options.truth)->value_name("MANIFEST.tsv"),
           "path and label of every input; without INPUT, its paths are the input")
      ("split", po::value(&options.split)->value_name("RUN/split.tsv"),
           "classify and evaluate windows that finetune listed, in place of INPUT")
      ("only", po::value(&options.only)->default_value("test")->value_name("PART")
           ->notifier(one_of("only", {"train", "valid", "test"})), "with --split: which of its windows");
  line.group("Output").add_options()
      ("output,o", po::value(&options.output)->default_value("-")->value_name("OUT.tsv"),
           "where the table goes; an evaluation also writes OUT.metrics.json and *_mqc.json beside it");
  // clang-format on
  line.example("longstrand classify -m run/best data/genomes/*.fa.gz -o classes.tsv");
  line.example("longstrand classify -m run/best --split run/split.tsv --only test -o heldout.tsv");
}

void check(const ClassifyOptions& options, const CommandLine& line) {
  const RecordOptions& records = options.records;
  if (!options.split.empty()) {
    const bool cuts = line.given("window") || line.given("stride") || !records.regions.empty() ||
                      !records.regions_file.empty();
    if (!records.input.paths.empty() || !options.truth.empty() || cuts) {
      throw UsageError(
          "--split says which windows and what they are: leave out INPUT, --truth, windows and regions");
    }
  } else if (records.input.paths.empty() && options.truth.empty()) {
    throw UsageError("no input: give INPUT..., --truth or --split");
  }
}

// What is classified, and, for an evaluation, the true label of every file.
struct Work {
  std::vector<SplitFile> split_files;              // with --split
  std::optional<std::vector<std::string>> labels;  // by file
};

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

Work plan(ClassifyOptions& options) {
  Work work;
  std::vector<std::string>& paths = options.records.input.paths;
  if (!options.split.empty()) {
    work.split_files = read_split_files(options.split, *parse_split(options.only));
    work.labels.emplace();
    for (const SplitFile& file : work.split_files) work.labels->push_back(file.label);
  } else if (!options.truth.empty()) {
    const Manifest manifest = read_manifest(options.truth);
    if (paths.empty()) {
      for (const ManifestEntry& entry : manifest.entries) paths.push_back(entry.path);
    }
    work.labels = labels_of(paths, manifest, options.truth);
  }
  return work;
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
  if (line.given("window")) return;
  records.window = classifier.window_bases;
  if (!line.given("stride")) records.stride = classifier.window_bases > 0 ? classifier.stride_bases : 0;
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
  check(options, line);

  const Model model = Model::load(options.records.model);
  if (!model.classifier()) {
    throw std::runtime_error("'" + options.records.model +
                             "' has no classifier: train one with longstrand finetune");
  }
  const std::vector<std::string>& labels = model.classifier()->labels;
  const Work work = plan(options);
  std::vector<std::int64_t> truth;  // by file
  if (work.labels) truth = classes_of(*work.labels, labels);
  if (work.split_files.empty()) take_windows_of(*model.classifier(), line, options.records);
  options.records.check();

  Inference inference(model, line.execution().options, {.readout = Readout::probabilities});
  const std::int64_t chunk_tokens = inference.preferred_chunk_tokens();
  io::ChunkStream stream = work.split_files.empty()
                               ? options.records.open(chunk_tokens)
                               : open_split_files(work.split_files, options.records.source_options(),
                                                  options.records.stream_options(chunk_tokens));
  io::TsvWriter table(options.output, columns(labels, work.labels.has_value()));
  ConfusionMatrix confusion(labels);
  run_records(inference, std::move(stream), {.label = "classifying"}, [&](const ChunkResult& result) {
    if (!ends_record(result)) return;
    const io::RecordInfo& record = record_of(result);
    const std::span<const float> probabilities(result.records.data, labels.size());
    const auto predicted = std::ranges::max_element(probabilities) - probabilities.begin();
    table.cell(record.name).cell(record.begin).cell(record.begin + record.length).cell(labels[predicted]);
    for (const float probability : probabilities) table.cell(probability);
    if (work.labels) {
      const std::int64_t true_class = truth[origin_of(result.batch).file_index[0]];
      confusion.add(true_class, predicted);
      table.cell(labels[true_class]);
    }
    table.end_row();
  });
  table.commit();
  if (!work.labels) return;
  log_confusion(confusion);
  if (options.output == "-") return;
  write_classification_report(confusion,
                              {{"model_fingerprint", model.fingerprint()},
                               {"command_line", line.text()},
                               {"version", LONGSTRAND_VERSION}},
                              options.output);
}

}  // namespace longstrand::pipelines
