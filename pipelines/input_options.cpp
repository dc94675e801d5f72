#include "pipelines/input_options.hpp"

#include <algorithm>
#include <functional>

namespace longstrand::pipelines {

void ReadingOptions::add_to(CommandLine& line, const std::string& heading) {
  // clang-format off
  line.group(heading).add_options()
      ("reference,f", po::value(&reference)->value_name("REF.fa"), "reference of CRAM input, with its .fai")
      ("ambiguous", po::value(&ambiguous)->default_value("n")->value_name("HOW")
           ->notifier(one_of("ambiguous", {"n", "unk", "error"})),
           "IUPAC codes such as R or Y become N (n), the unknown token (unk), or stop the command (error)");
  // clang-format on
}

io::SourceOptions ReadingOptions::source_options(const CommonOptions& common) const {
  io::SourceOptions options;
  options.reference = reference;
  options.decompression_threads = common.thread_count() > 1 ? 1 : 0;
  return options;
}

void InputOptions::add_to(CommandLine& line, bool required) {
  const std::function<void(const std::vector<std::string>&)> check = [](const auto& given) {
    if (std::ranges::count(given, "-") > 1) throw UsageError("-: standard input can be read once");
  };
  auto* inputs = po::value(&paths)->notifier(check);
  line.positional("input", required ? inputs->required() : inputs);
  reading.add_to(line, "Input (FASTA, FASTQ, SAM, BAM, CRAM; plain, gzip or bgzf; - for standard input)");
}

}  // namespace longstrand::pipelines
