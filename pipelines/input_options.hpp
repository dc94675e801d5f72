// The options of every command that reads sequences.
#pragma once

#include <string>
#include <vector>

#include "io/alphabet.hpp"
#include "io/sequence_source.hpp"
#include "pipelines/command_line.hpp"

namespace longstrand::pipelines {

struct InputOptions {
  std::vector<std::string> paths;
  std::string reference;
  std::string ambiguous = "n";

  /// Adds INPUT..., --reference and --ambiguous. Must outlive the command line's parse().
  void add_to(CommandLine& line, bool required = true);
  io::SourceOptions source_options() const;
  io::Ambiguous ambiguous_policy() const { return io::parse_ambiguous(ambiguous); }
};

}  // namespace longstrand::pipelines
