#include "pipelines/record_options.hpp"

#include <array>

namespace longstrand::pipelines {

void RecordOptions::add_to(CommandLine& line, const std::string& window_default) {
  // clang-format off
  line.group("Model").add_options()
      ("model,m", po::value(&model)->required()->value_name("FOLDER"), "config.json and model.safetensors");
  input.add_to(line, /*required=*/false);
  line.group("Parts of records").add_options()
      ("region,r", po::value(&regions)->value_name("REGION"),
           "chr:start-end, 1-based inclusive; may be given more than once; needs an index")
      ("regions-file,R", po::value(&regions_file)->value_name("FILE"),
           "BED (0-based) if it ends in .bed or .bed.gz, else tabs, 1-based inclusive")
      ("window", po::value(&window)->default_value(0, window_default)->value_name("BASES")
           ->notifier(at_least<std::int64_t>("window", 0)),
           "cut records into windows, each read on its own; 0: whole records")
      ("stride", po::value(&stride)->default_value(0, "the window")->value_name("BASES")
           ->notifier(at_least<std::int64_t>("stride", 0)), "from one window's start to the next one's")
      ("split", po::value(&split)->value_name("RUN/split.tsv"),
           "the windows that finetune listed there, in place of INPUT")
      ("only", po::value(&only)->default_value("test")->value_name("PART")
           ->notifier(one_of("only", {"train", "valid", "test"})), "with --split: which of its windows");
  // clang-format on
}

void RecordOptions::add_strands_to(CommandLine& line, const std::string& heading,
                                   const std::string& mean_of) {
  // clang-format off
  line.group(heading).add_options()
      ("reverse-complement", po::value(&reverse_complement)->default_value("none")->value_name("HOW")
           ->notifier(one_of("reverse-complement", {"none", "average"})), ("average: the mean of " + mean_of).c_str());
  // clang-format on
}

void RecordOptions::check(const CommandLine& line) const {
  if (stride > 0 && window == 0) throw UsageError("--stride needs --window");
  if (split.empty()) {
    if (input.paths.empty()) throw UsageError("no input: give INPUT... or --split");
    return;
  }
  for (const char* option : {"input", "region", "regions-file", "window", "stride"}) {
    if (line.given(option))
      throw UsageError("--split says which windows to read: leave out INPUT, windows and regions");
  }
}

void RecordOptions::check(const ModelConfig& config) const {
  if (!config.equivariant || !both_strands()) return;
  throw UsageError(
      "--reverse-complement average: an equivariant model reads both strands anyway; leave it out");
}

io::SourceOptions RecordOptions::source_options(const CommonOptions& common) const {
  io::SourceOptions options = input.reading.source_options(common);
  options.regions = regions;
  options.regions_file = regions_file;
  return options;
}

std::vector<SplitFile> RecordOptions::split_files() const {
  const std::array parts{*parse_split(only)};
  return read_split_files(split, parts);
}

io::ChunkStream RecordOptions::open(const CommonOptions& common, io::ChunkStreamOptions options) const {
  options.ambiguous = input.reading.ambiguous_policy();
  options.window = window;
  options.stride = stride;
  if (!split.empty()) return open_split_files(split_files(), source_options(common), options);
  return {input.paths, source_options(common), options};
}

}  // namespace longstrand::pipelines
