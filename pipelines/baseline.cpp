#include "pipelines/baseline.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "io/atomic_file.hpp"
#include "io/json_text.hpp"
#include "pipelines/command_line.hpp"
#include "pipelines/confusion_matrix.hpp"
#include "pipelines/input_options.hpp"
#include "pipelines/interrupt.hpp"
#include "pipelines/kmer_centroids.hpp"
#include "pipelines/logging.hpp"
#include "pipelines/split_files.hpp"

namespace longstrand::pipelines {
namespace {

constexpr std::int64_t kChunkTokens = std::int64_t{1} << 16;

// Calls `take` with the file's index and the k-mer counts of every window.
void for_each_window(io::ChunkStream windows, int k,
                     const std::function<void(std::int64_t, std::span<const double>)>& take) {
  KmerCounter counter(k);
  io::TokenChunk chunk;
  while (windows.next(chunk)) {
    stop_if_interrupted(/*resumable=*/false);
    if (chunk.starts[0]) counter.reset();
    counter.add(std::span(chunk.tokens).first(static_cast<std::size_t>(chunk.valid[0])));
    if (chunk.ends[0]) take(chunk.file_index[0], counter.counts());
  }
}

std::vector<std::int64_t> classes_of(const std::vector<SplitFile>& files,
                                     const std::vector<std::string>& labels) {
  std::vector<std::int64_t> classes;
  for (const SplitFile& file : files)
    classes.push_back(std::ranges::lower_bound(labels, file.label) - labels.begin());
  return classes;
}

}  // namespace

void baseline(const std::vector<std::string>& arguments) {
  std::string split;
  std::string output;
  ReadingOptions reading;
  int k = 0;
  CommandLine line(
      "baseline", "--split RUN/split.tsv [-o OUT.json]",
      "A yardstick for classifiers: gives every test window of a split the class whose other windows'\n"
      "mean k-mer frequencies are nearest, by Euclidean distance and by cosine, and writes both results.");
  // clang-format off
  line.group("Input").add_options()
      ("split", po::value(&split)->required()->value_name("RUN/split.tsv"), "the windows, as finetune listed them")
      ("k,k", po::value(&k)->default_value(5)->value_name("K")->notifier(in_range<int>("k", 1, kLargestK)),
           "length of the k-mers");
  // clang-format on
  reading.add_to(line, "Input");
  // clang-format off
  line.group("Output").add_options()
      ("output,o", po::value(&output)->default_value("-")->value_name("OUT.json"), "standard output if not given");
  // clang-format on
  line.example("longstrand baseline --split run/split.tsv -k 5");
  if (!line.parse(arguments)) return;

  const std::vector<SplitFile> known = read_split_files(split, std::array{Split::train, Split::valid});
  const std::vector<SplitFile> test = read_split_files(split, std::array{Split::test});
  std::set<std::string> names;
  for (const auto* files : {&known, &test}) {
    for (const SplitFile& file : *files) names.insert(file.label);
  }
  const std::vector<std::string> labels(names.begin(), names.end());
  const auto classes = static_cast<std::int64_t>(labels.size());

  nlohmann::json report = {{"k", k}, {"command_line", line.text()}, {"version", LONGSTRAND_VERSION}};
  std::array centroids{KmerCentroids(classes, k, Similarity::euclidean),
                       KmerCentroids(classes, k, Similarity::cosine)};
  std::array confusions{ConfusionMatrix(labels), ConfusionMatrix(labels)};
  const std::vector<std::int64_t> known_classes = classes_of(known, labels);
  const std::vector<std::int64_t> test_classes = classes_of(test, labels);
  const auto open = [&](const std::vector<SplitFile>& files) {
    return open_split_files(files, reading.source_options(line.common()),
                            {.chunk_tokens = kChunkTokens, .ambiguous = reading.ambiguous_policy()});
  };
  for_each_window(open(known), k, [&](std::int64_t file, std::span<const double> counts) {
    for (KmerCentroids& some : centroids) some.add(known_classes[file], counts);
  });
  for_each_window(open(test), k, [&](std::int64_t file, std::span<const double> counts) {
    for (std::size_t i = 0; i < centroids.size(); ++i) {
      confusions[i].add(test_classes[file], centroids[i].predict(counts));
    }
  });
  report["euclidean"] = confusions[0].to_json();
  report["cosine"] = confusions[1].to_json();
  report["accuracy"] = std::max(confusions[0].accuracy(), confusions[1].accuracy());
  spdlog::info("{}-mer nearest centroid over {} windows: accuracy {:.4f} (euclidean), {:.4f} (cosine)", k,
               confusions[0].total(), confusions[0].accuracy(), confusions[1].accuracy());
  io::write_file(output, io::json_text(report, 2) + "\n");
}

}  // namespace longstrand::pipelines
