#include "pipelines/command_line.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <boost/algorithm/string/case_conv.hpp>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <limits>
#include <set>
#include <thread>
#include <utility>

#include "pipelines/logging.hpp"

namespace longstrand::pipelines {
namespace {

constexpr unsigned kHelpColumns = 110;
const char* const kCommonTitle = "Common options";

// How a run is begun or reported, not what it computes.
const std::set<std::string> kNotInConfig = {"help",  "config",  "resume", "force",
                                            "quiet", "verbose", "json",   "output"};

// Options that name files to read.
const std::set<std::string> kPathOptions = {"input", "valid", "init", "labels", "reference"};

// What users of other programs will try, with what it is called here.
const std::map<std::string, std::string> kOtherNames = {
    {"--rcps", "such a model is made by pretrain --bidirectional --rc equivariant"},
};

std::string quoted_for_shell(const std::string& word) {
  const auto safe = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string("-_./=:,+@%").find(c) != std::string::npos;
  };
  if (!word.empty() && std::all_of(word.begin(), word.end(), safe)) return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

template <class T>
bool append_as(const boost::any& value, std::vector<std::string>& texts) {
  const auto* typed = boost::any_cast<T>(&value);
  if (typed != nullptr) texts.push_back(fmt::format("{}", *typed));
  return typed != nullptr;
}

// One text for each value of an option.
std::vector<std::string> texts_of(const boost::any& value) {
  if (const auto* list = boost::any_cast<std::vector<std::string>>(&value)) return *list;
  std::vector<std::string> texts;
  [[maybe_unused]] const bool known = append_as<std::string>(value, texts) || append_as<bool>(value, texts) ||
                                      append_as<int>(value, texts) || append_as<std::int64_t>(value, texts) ||
                                      append_as<std::uint64_t>(value, texts) ||
                                      append_as<double>(value, texts);
  assert(known && "an option of a type that config() does not write");
  return texts;
}

void add_config_line(std::string& config, const std::string& name, const std::string& text) {
  const std::string value = config_value(name, text);
  // Boost's INI format takes '#' for a comment wherever it stands and has no way to quote it.
  if (value.find_first_of("#\n") != std::string::npos) {
    throw UsageError(fmt::format("--{} '{}': a config file cannot hold '#' or a line break; rename the file",
                                 name, value));
  }
  config += fmt::format("{}={}\n", name, value);
}

}  // namespace

int CommonOptions::thread_count() const {
  return threads > 0 ? threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

CommandLine::CommandLine(std::string name, std::string synopsis, std::string about)
    : name_(std::move(name)), synopsis_(std::move(synopsis)), about_(std::move(about)) {}

po::options_description& CommandLine::group(const std::string& title) {
  for (auto& group : groups_) {
    if (group.title == title) return group.options;
  }
  return groups_.emplace_back(Group{title, po::options_description(title, kHelpColumns, kHelpColumns / 2)})
      .options;
}

void CommandLine::positional(const std::string& name, po::value_semantic* value) {
  positional_ = name;
  hidden_.add_options()(name.c_str(), value);
  positions_.add(name.c_str(), -1);
}

po::options_description CommandLine::all() const {
  po::options_description all;
  all.add(hidden_);
  for (const auto& group : groups_) all.add(group.options);
  return all;
}

bool CommandLine::parse(const std::vector<std::string>& arguments) {
  // clang-format off
  group(kCommonTitle).add_options()
      ("threads,t", po::value(&common_.threads)->default_value(0, "all")->value_name("N")
           ->notifier(at_least<int>("threads", 0)), "threads in all")
      ("device", po::value(&common_.device)->default_value("auto")->value_name("NAME"),
           "cpu, cuda (the first GPU), cuda:K (the GPU of that number) or auto: the first GPU if it can be used, "
           "else the CPU")
      ("precision", po::value(&common_.precision)->default_value("auto")->value_name("P")
           ->notifier(one_of("precision", {"auto", "fp32", "bf16"})),
           "fp32, bf16 or auto: bf16 where the device has matrix instructions for it, but fp32 for score")
      ("chunk", po::value(&common_.chunk)->default_value(0, "automatic")->value_name("N")
           ->notifier(at_least<std::int64_t>("chunk", 0)), "tokens computed at once; results do not depend on it")
      ("seed", po::value(&common_.seed)->default_value(1)->value_name("N"), "of everything random")
      ("config", po::value<std::string>()->value_name("FILE"),
           "options in INI form, name=value a line; the command line goes before it")
      ("quiet,q", po::bool_switch(&common_.quiet), "no progress, only warnings and errors")
      ("verbose,v", po::bool_switch(&common_.verbose), "more in the log")
      ("help,h", "this text");
  // clang-format on
  text_ = "longstrand " + name_;
  for (const auto& argument : arguments) text_ += fmt::format(" {}", quoted_for_shell(argument));
  try {
    store(arguments);
    if (values_.contains("help")) {
      print_help();
      return false;
    }
    po::notify(values_);
  } catch (const po::required_option& error) {
    if (error.get_option_name() != "--" + positional_) {
      throw UsageError(fmt::format("{} is required", error.get_option_name()));
    }
    throw UsageError(fmt::format("no {} is given", boost::to_upper_copy(positional_)));
  } catch (const po::error& error) {
    throw UsageError(error.what());
  }
  configure_logging(common_.quiet, common_.verbose);
  return true;
}

void CommandLine::store(const std::vector<std::string>& arguments) {
  namespace style = po::command_line_style;
  const auto options = all();
  try {
    po::store(po::command_line_parser(arguments)
                  .options(options)
                  .positional(positions_)
                  .style(style::unix_style & ~style::allow_guessing)
                  .run(),
              values_);
  } catch (const po::unknown_option& error) {
    const auto other = kOtherNames.find(error.get_option_name());
    if (other != kOtherNames.end()) throw UsageError(other->first + ": " + other->second);
    throw;
  }
  for (const auto& [name, value] : values_) {
    if (!value.defaulted()) typed_.insert(name);
  }
  if (!values_.contains("config")) return;
  const auto& path = values_["config"].as<std::string>();
  std::ifstream file(path);
  if (!file) throw std::runtime_error(fmt::format("cannot open the config file '{}': check --config", path));
  try {
    po::store(po::parse_config_file(file, options), values_);
  } catch (const po::error& error) {
    throw UsageError(fmt::format("config file '{}': {}", path, error.what()));
  }
}

bool CommandLine::given(const std::string& option) const {
  return values_.contains(option) && !values_[option].defaulted();
}

ResolvedExecution CommandLine::execution(bool small_differences) const {
  try {
    auto resolved = resolve_execution({.device = common_.device,
                                       .precision = common_.precision,
                                       .threads = common_.threads,
                                       .chunk_tokens = common_.chunk,
                                       .small_differences = small_differences});
    spdlog::info("{}", resolved.description);
    resolved.options.notify = [](const std::string& line) { spdlog::info("{}", line); };
    return resolved;
  } catch (const std::invalid_argument& error) {
    throw UsageError(error.what());
  }
}

std::string CommandLine::config(const std::map<std::string, std::string>& resolved) const {
  std::string config;
  const auto options = all();
  for (const auto& option : options.options()) {
    const auto& name = option->long_name();
    if (kNotInConfig.contains(name) || !values_.contains(name)) continue;
    if (const auto replaced = resolved.find(name); replaced != resolved.end()) {
      add_config_line(config, name, replaced->second);
      continue;
    }
    for (const auto& text : texts_of(values_[name].value())) add_config_line(config, name, text);
  }
  return config;
}

void CommandLine::print_help() const {
  std::cout << fmt::format("longstrand {} {}\n\n{}\n", name_, synopsis_, about_);
  for (const auto& group : groups_) {
    if (group.title != kCommonTitle) std::cout << '\n' << group.options;
  }
  for (const auto& group : groups_) {
    if (group.title == kCommonTitle) std::cout << '\n' << group.options;
  }
  std::cout << (examples_.size() > 1 ? "\nExamples:\n" : "\nExample:\n");
  for (const auto& example : examples_) std::cout << "  " << example << '\n';
}

std::string config_value(const std::string& option, const std::string& value) {
  if (!kPathOptions.contains(option) || value.empty() || value == "-") return value;
  return std::filesystem::absolute(value).lexically_normal().string();
}

po::typed_value<double>* with_default(double& variable, double value) {
  return po::value(&variable)->default_value(value, fmt::format("{}", value));
}

template <class T>
std::function<void(const T&)> in_range(std::string option, T low, T high) {
  return [option = std::move(option), low, high](const T& value) {
    if (value >= low && value <= high) return;
    throw UsageError(high == std::numeric_limits<T>::max()
                         ? fmt::format("--{} {}: must be at least {}", option, value, low)
                         : fmt::format("--{} {}: must be from {} to {}", option, value, low, high));
  };
}

template <class T>
std::function<void(const T&)> at_least(std::string option, T low) {
  return in_range<T>(std::move(option), low, std::numeric_limits<T>::max());
}

template std::function<void(const int&)> in_range(std::string, int, int);
template std::function<void(const std::int64_t&)> in_range(std::string, std::int64_t, std::int64_t);
template std::function<void(const double&)> in_range(std::string, double, double);
template std::function<void(const int&)> at_least(std::string, int);
template std::function<void(const std::int64_t&)> at_least(std::string, std::int64_t);
template std::function<void(const double&)> at_least(std::string, double);

std::function<void(const std::string&)> one_of(std::string option, std::vector<std::string> allowed) {
  return [option = std::move(option), allowed = std::move(allowed)](const std::string& value) {
    if (std::find(allowed.begin(), allowed.end(), value) != allowed.end()) return;
    throw UsageError(fmt::format("--{} '{}': must be one of {}", option, value, fmt::join(allowed, ", ")));
  };
}

}  // namespace longstrand::pipelines
