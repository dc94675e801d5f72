// The commands of the program. A new command is a file pair and a row of the table in command_table.cpp.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace longstrand::pipelines {

struct Command {
  std::string_view name;
  std::string_view summary;  // one line of the program's help
  /// Throws UsageError for wrong usage and other exceptions for what failed.
  void (*run)(const std::vector<std::string>& arguments);
};

/// Throws UsageError, with the closest name where there is one, if there is no such command.
const Command& find_command(std::string_view name);

/// `longstrand --help`
std::string program_help();

}  // namespace longstrand::pipelines
