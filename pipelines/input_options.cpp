#include "pipelines/input_options.hpp"

namespace longstrand::pipelines {

void InputOptions::add_to(CommandLine& line, bool required) {
  auto* inputs = po::value(&paths);
  line.positional("input", required ? inputs->required() : inputs);
  // clang-format off
  line.group("Input (FASTA, FASTQ, SAM, BAM, CRAM; plain, gzip or bgzf; - for standard input)").add_options()
      ("reference,f", po::value(&reference)->value_name("REF.fa"), "reference of CRAM input, with its .fai")
      ("ambiguous", po::value(&ambiguous)->default_value("n")->value_name("HOW")
           ->notifier(one_of("ambiguous", {"n", "unk", "error"})),
           "IUPAC codes such as R or Y become N (n), the unknown token (unk), or stop the command (error)");
  // clang-format on
}

io::SourceOptions InputOptions::source_options() const {
  io::SourceOptions options;
  options.reference = reference;
  return options;
}

}  // namespace longstrand::pipelines
