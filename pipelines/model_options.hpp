// The options that say what a new model is: its shape and its kind.
#pragma once

#include <cstdint>
#include <string>

#include "pipelines/command_line.hpp"
#include "src/config.hpp"

namespace longstrand::pipelines {

struct ModelOptions {
  std::int64_t d_model = 0;
  std::int64_t layers = 0;
  std::int64_t d_state = 0;
  bool bidirectional = false;
  std::string rc;

  /// Adds --d-model, --layers, --d-state, --bidirectional and --rc. Must outlive the command line's parse().
  void add_to(CommandLine& line, const std::string& heading, const ModelConfig& defaults);
  /// Throws UsageError for what contradicts itself.
  void check() const;
  /// Throws UsageError for options that a model to begin with has decided.
  void check_left_to_init(const CommandLine& line) const;
  ModelConfig config() const;

  bool equivariant() const { return rc == "equivariant"; }
  /// Whether sequences to train on are to be read on either strand.
  bool augments() const { return rc == "augment"; }
};

}  // namespace longstrand::pipelines
