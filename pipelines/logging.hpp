// The log: spdlog's default logger, on standard error. Progress bars share that stream (progress.hpp).
#pragma once

#include <spdlog/spdlog.h>

namespace longstrand::pipelines {

/// quiet: warnings only; verbose: debug messages too.
void configure_logging(bool quiet, bool verbose);

bool stderr_is_terminal();

}  // namespace longstrand::pipelines
