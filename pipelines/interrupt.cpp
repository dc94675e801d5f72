#include "pipelines/interrupt.hpp"

#include <atomic>
#include <csignal>
#include <cstdint>
#include <ctime>

#include "io/stop.hpp"

namespace longstrand::pipelines {
namespace {

// A signal handler can reach nothing but globals.
std::atomic<std::int64_t> stop_requested_s =
    0;  // when the first signal came, on the monotonic clock; 0: none did
static_assert(std::atomic<std::int64_t>::is_always_lock_free, "set in a signal handler");

/// Some programs (timeout) signal twice at once: only a signal a second or more after the first one kills.
extern "C" void request_stop(int signal) {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  const std::int64_t now_s = now.tv_sec + 1;  // never 0
  std::int64_t first_s = 0;
  if (stop_requested_s.compare_exchange_strong(first_s, now_s)) {
    io::stop_waiting();
    return;
  }
  if (now_s - first_s < 2) return;  // whole seconds: less than one may have passed
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

}  // namespace

void install_signal_handlers() {
  struct sigaction stop {};
  stop.sa_handler = request_stop;
  for (const int signal : {SIGINT, SIGTERM}) ::sigaction(signal, &stop, nullptr);
  for (const int signal : {SIGPIPE, SIGXFSZ}) std::signal(signal, SIG_IGN);
}

void stop_if_interrupted(bool resumable) {
  if (stop_requested_s == 0) return;
  throw Interrupted(resumable
                        ? "interrupted; finished output is kept; run the same command with --resume to go on"
                        : "interrupted; no unfinished output is kept");
}

}  // namespace longstrand::pipelines
