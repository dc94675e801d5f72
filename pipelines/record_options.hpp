// The options of the commands that run a model over records: which model, which records or parts of them.
#pragma once

#include <string>
#include <vector>

#include "io/chunk_stream.hpp"
#include "pipelines/command_line.hpp"
#include "pipelines/input_options.hpp"

namespace longstrand::pipelines {

struct RecordOptions {
  struct Defaults {
    bool inputs_required;
    std::string window_default;  // what the help says of --window
  };

  InputOptions input;
  std::string model;
  std::vector<std::string> regions;
  std::string regions_file;
  std::int64_t window = 0;  // 0: whole records
  std::int64_t stride = 0;  // 0: the window's length

  /// Adds --model, those of InputOptions, --region, --regions-file, --window and --stride. Must outlive the
  /// command line's parse().
  void add_to(CommandLine& line, const Defaults& defaults);
  void add_to(CommandLine& line) {
    add_to(line, {.inputs_required = true, .window_default = "whole records"});
  }
  /// Throws UsageError for a stride without a window.
  void check() const;

  io::SourceOptions source_options() const;
  io::ChunkStreamOptions stream_options(std::int64_t chunk_tokens) const;
  /// All records of all inputs.
  io::ChunkStream open(std::int64_t chunk_tokens, std::int64_t skip_records = 0) const;
};

}  // namespace longstrand::pipelines
