// The command line of one command: its options, its help, and the config file that can stand for it.
//
//   CommandLine line("embed", "-m MODEL INPUT... -o OUT.h5ad", "Writes embeddings ...");
//   line.group("Output").add_options()("output,o", po::value(&output)->required(), "...");
//   line.positional("input", po::value(&inputs)->required());
//   line.example("longstrand embed -m run/model data/genomes/*.fa.gz -o genomes.h5ad");
//   if (!line.parse(arguments)) return;  // help was asked for and is printed
#pragma once

#include <boost/program_options.hpp>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "src/execution.hpp"

namespace longstrand::pipelines {

namespace po = boost::program_options;

/// The user asked for something that the command does not offer: exit code 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Options that every command has.
struct CommonOptions {
  int threads = 0;  // 0: all
  std::string device = "auto";
  std::string precision = "auto";
  std::int64_t chunk = 0;  // tokens; 0: what is fast on the device
  std::uint64_t seed = 1;
  bool quiet = false;
  bool verbose = false;

  /// `threads`, or as many as the machine has.
  int thread_count() const;
};

class CommandLine {
 public:
  /// `synopsis` follows "longstrand NAME" in the help, `about` is a sentence or more under it.
  CommandLine(std::string name, std::string synopsis, std::string about);
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  /// The options under one heading of the help; headings appear in the order of their first use.
  po::options_description& group(const std::string& title);
  /// What stands on the command line without an option's name. In a config file it is called `name`.
  void positional(const std::string& name, po::value_semantic* value);
  void example(std::string command) { examples_.push_back(std::move(command)); }

  /// Sets the variables behind the options, from the command line first, then from --config FILE, then from
  /// the defaults; sets the log up. False where --help was asked for, which is then on standard output.
  /// Throws UsageError for an unknown, missing or malformed option, std::runtime_error for an unreadable
  /// config file.
  bool parse(const std::vector<std::string>& arguments);

  /// True if the user gave the option, on the command line or in the config file.
  bool given(const std::string& option) const;
  /// ... on the command line: a run's config.ini holds all options, those that do not matter too.
  bool typed(const std::string& option) const { return typed_.contains(option); }
  const CommonOptions& common() const { return common_; }
  /// Device, precision and threads as they will be used, said in the log; `small_differences`, of results:
  /// --precision auto means fp32. Throws UsageError for what cannot be had.
  ResolvedExecution execution(bool small_differences = false) const;

  /// The options as resolved, name=value a line, as --config reads them; `resolved` replaces values that the
  /// command worked out itself. Options that say how a run is begun (--resume, --force, ...) are left out.
  std::string config(const std::map<std::string, std::string>& resolved = {}) const;
  /// The command as it was typed, quoted for a shell.
  const std::string& text() const { return text_; }

 private:
  po::options_description all() const;
  void store(const std::vector<std::string>& arguments);
  void print_help() const;

  std::string name_;
  std::string synopsis_;
  std::string about_;
  std::vector<std::string> examples_;
  CommonOptions common_;
  struct Group {
    std::string title;
    po::options_description options;
  };
  std::list<Group> groups_;         // a list: commands hold references into it
  std::string positional_;          // what stands without an option's name
  po::options_description hidden_;  // the same, as an option
  po::positional_options_description positions_;
  po::variables_map values_;
  std::set<std::string> typed_;
  std::string text_;
};

/// An option's value as config() writes it: the names of files absolute, so that they can be found from
/// anywhere.
std::string config_value(const std::string& option, const std::string& value);

/// An option's value with a default that the help shows in its shortest form (Boost would print
/// 0.10000000000000001).
po::typed_value<double>* with_default(double& variable, double value);

/// For po::typed_value::notifier: throws UsageError naming the option unless low <= value <= high.
template <class T>
std::function<void(const T&)> in_range(std::string option, T low, T high);
template <class T>
std::function<void(const T&)> at_least(std::string option, T low);
/// ... unless the value is one of `allowed`.
std::function<void(const std::string&)> one_of(std::string option, std::vector<std::string> allowed);

}  // namespace longstrand::pipelines
