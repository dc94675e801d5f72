// The program: finds the command and turns what it throws into one line and an exit code.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <new>

#include "pipelines/command_line.hpp"
#include "pipelines/command_table.hpp"
#include "pipelines/interrupt.hpp"
#include "pipelines/logging.hpp"

namespace {

using namespace longstrand::pipelines;

constexpr int kDone = 0;
constexpr int kFailed = 1;
constexpr int kWrongUsage = 2;

/// Where that cannot be written, the exit code has to do.
void print_to_stderr(const std::string& text) { std::fputs(text.c_str(), stderr); }

void print_error(const std::string& who, std::string what, const std::string& hint = {}) {
  std::replace(what.begin(), what.end(), '\n', ' ');
  print_to_stderr(
      fmt::format("{}{}: error: {}{}\n", stderr_is_terminal() ? "\r\x1b[K" : "", who, what, hint));
}

void flush_standard_output() {
  if (!std::cout.flush()) throw std::runtime_error("cannot write to standard output");
}

int run_command(const Command& command, const std::vector<std::string>& arguments) {
  const std::string who = fmt::format("longstrand {}", command.name);
  try {
    command.run(arguments);
    flush_standard_output();
    return kDone;
  } catch (const UsageError& error) {
    print_error(who, error.what(), fmt::format("; see {} --help", who));
    return kWrongUsage;
  } catch (const std::bad_alloc&) {
    print_error(who, "out of memory; try a smaller --chunk or fewer --threads");
  } catch (const std::exception& error) {
    print_error(who, error.what());
  }
  return kFailed;
}

int run_program(const std::vector<std::string>& words) {
  if (words.empty()) {
    print_to_stderr(program_help());
    return kWrongUsage;
  }
  try {
    if (words[0] == "--help" || words[0] == "-h" || words[0] == "--version") {
      std::cout << (words[0] == "--version" ? "longstrand " LONGSTRAND_VERSION "\n" : program_help());
      flush_standard_output();
      return kDone;
    }
    return run_command(find_command(words[0]), {words.begin() + 1, words.end()});
  } catch (const UsageError& error) {
    print_error("longstrand", error.what(), "; see longstrand --help");
    return kWrongUsage;
  } catch (const std::exception& error) {
    print_error("longstrand", error.what());
    return kFailed;
  }
}

/// A standard stream that is closed would be the next file that is opened. Reading from what it becomes, or
/// writing to it, is an error.
void occupy_closed_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(stream, F_GETFD) >= 0) continue;
    if (::open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY) != stream) std::abort();
  }
}

}  // namespace

int main(int argc, char** argv) {
  occupy_closed_streams();
  install_signal_handlers();
  return run_program({argv + 1, argv + argc});
}
