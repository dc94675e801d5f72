// The options of the commands that run a model over records: which model, which records or parts of them.
#pragma once

#include <string>
#include <vector>

#include "io/chunk_stream.hpp"
#include "pipelines/command_line.hpp"
#include "pipelines/input_options.hpp"
#include "pipelines/split_files.hpp"
#include "src/config.hpp"

namespace longstrand::pipelines {

struct RecordOptions {
  InputOptions input;
  std::string model;
  std::vector<std::string> regions;
  std::string regions_file;
  std::int64_t window = 0;  // 0: whole records
  std::int64_t stride = 0;  // 0: the window's length
  std::string split;        // a split.tsv that says all this, or empty
  std::string only;         // the part of it to read
  std::string reverse_complement = "none";

  /// Adds --model, those of InputOptions, --region, --regions-file, --window, --stride, --split and --only.
  /// Must outlive the command line's parse(). `window_default` is what the help says of --window.
  void add_to(CommandLine& line, const std::string& window_default = "whole records");
  /// Adds --reverse-complement; `mean_of` is what the help says of its average.
  void add_strands_to(CommandLine& line, const std::string& heading, const std::string& mean_of);
  /// Throws UsageError for no input, for a stride without a window, and for --split beside what it stands
  /// for.
  void check(const CommandLine& line) const;
  /// ... and for both strands of a model that reads both by itself.
  void check(const ModelConfig& config) const;
  bool both_strands() const { return reverse_complement == "average"; }

  io::SourceOptions source_options(const CommonOptions& common) const;
  std::vector<SplitFile> split_files() const;
  /// All records, windows, regions or windows of the split, of all inputs, in the order of the input.
  /// `options` says how they are cut into chunks and which are skipped; the rest of it is filled in.
  io::ChunkStream open(const CommonOptions& common, io::ChunkStreamOptions options) const;
};

}  // namespace longstrand::pipelines
