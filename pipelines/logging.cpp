#include "pipelines/logging.hpp"

#include <spdlog/sinks/stdout_sinks.h>
#include <unistd.h>

#include <memory>

namespace longstrand::pipelines {

void configure_logging(bool quiet, bool verbose) {
  auto logger =
      std::make_shared<spdlog::logger>("longstrand", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  // On a terminal a message first erases the progress bar, which is drawn again below it.
  logger->set_pattern(stderr_is_terminal() ? "\r\x1b[K[%H:%M:%S] %l: %v" : "[%Y-%m-%d %H:%M:%S] %l: %v");
  logger->set_level(quiet ? spdlog::level::warn : verbose ? spdlog::level::debug : spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
}

bool stderr_is_terminal() { return ::isatty(STDERR_FILENO) == 1; }

}  // namespace longstrand::pipelines
