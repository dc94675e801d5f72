#include "pipelines/command_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "pipelines/baseline.hpp"
#include "pipelines/bench.hpp"
#include "pipelines/classify.hpp"
#include "pipelines/command_line.hpp"
#include "pipelines/convert.hpp"
#include "pipelines/embed.hpp"
#include "pipelines/finetune.hpp"
#include "pipelines/inspect.hpp"
#include "pipelines/pretrain.hpp"
#include "pipelines/score.hpp"

namespace longstrand::pipelines {
namespace {

constexpr std::array kCommands = {
    Command{"pretrain", "train a language model on sequences", pretrain},
    Command{"finetune", "train a classifier on labelled sequences", finetune},
    Command{"classify", "the class of records or windows, and how often it is right", classify},
    Command{"embed", "embeddings of records, windows or bases, as an .h5ad file", embed},
    Command{"score", "log-likelihood of records or windows", score},
    Command{"inspect", "what is in a model, run, embedding or sequence file", inspect},
    Command{"baseline", "what k-mer frequencies alone reach: a yardstick for classify", baseline},
    Command{"convert", "a model in the layout of mamba_ssm, transformers or Caduceus", convert},
    Command{"bench", "tokens a second and memory on this machine", bench},
};

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t substituted = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({substituted, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

}  // namespace

const Command& find_command(std::string_view name) {
  for (const auto& command : kCommands) {
    if (command.name == name) return command;
  }
  if (name == "variants") throw UsageError("'variants' is not in this version of longstrand");
  const auto closest =
      std::min_element(kCommands.begin(), kCommands.end(), [&](const auto& a, const auto& b) {
        return edit_distance(a.name, name) < edit_distance(b.name, name);
      });
  const bool similar = edit_distance(closest->name, name) <= 2;
  throw UsageError(fmt::format("there is no command '{}'{}", name,
                               similar ? fmt::format("; did you mean '{}'?", closest->name) : ""));
}

std::string program_help() {
  std::string text =
      "longstrand COMMAND [options] INPUT...\n\n"
      "DNA of any length through state-space models.\n\nCommands:\n";
  for (const auto& command : kCommands) text += fmt::format("  {:<10} {}\n", command.name, command.summary);
  return text +
         "\nlongstrand COMMAND --help    the options of a command, with an example\n"
         "longstrand --version         the version\n\n"
         "Exit codes: 0 done, 1 failed or interrupted, 2 wrong usage.\n";
}

}  // namespace longstrand::pipelines
