// The options of every command that reads sequences.
#pragma once

#include <string>
#include <vector>

#include "io/alphabet.hpp"
#include "io/sequence_source.hpp"
#include "pipelines/command_line.hpp"

namespace longstrand::pipelines {

/// How sequence files are read, whatever names them.
struct ReadingOptions {
  std::string reference;
  std::string ambiguous = "n";

  /// Adds --reference and --ambiguous under a heading of the help. Must outlive the command line's parse().
  void add_to(CommandLine& line, const std::string& heading);
  /// With -t of 2 or more, one thread decompresses ahead of the one that reads.
  io::SourceOptions source_options(const CommonOptions& common) const;
  io::Ambiguous ambiguous_policy() const { return io::parse_ambiguous(ambiguous); }
};

struct InputOptions {
  std::vector<std::string> paths;
  ReadingOptions reading;

  /// Adds INPUT... and those of ReadingOptions. Must outlive the command line's parse().
  void add_to(CommandLine& line, bool required = true);
};

}  // namespace longstrand::pipelines
