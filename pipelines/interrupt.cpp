#include "pipelines/interrupt.hpp"

#include <atomic>
#include <csignal>

namespace longstrand::pipelines {
namespace {

std::atomic<bool> stop_requested = false;  // a signal handler can reach nothing but globals
static_assert(std::atomic<bool>::is_always_lock_free, "set in a signal handler");

extern "C" void request_stop(int) { stop_requested = true; }

}  // namespace

void install_signal_handlers() {
  struct sigaction stop {};
  stop.sa_handler = request_stop;
  stop.sa_flags = static_cast<int>(SA_RESETHAND);  // the second signal finds the default action: it kills
  for (const int signal : {SIGINT, SIGTERM}) ::sigaction(signal, &stop, nullptr);
  for (const int signal : {SIGPIPE, SIGXFSZ}) std::signal(signal, SIG_IGN);
}

bool interrupted() { return stop_requested; }

void stop_if_interrupted(bool resumable) {
  if (!interrupted()) return;
  throw Interrupted(resumable
                        ? "interrupted; finished output is kept; run the same command with --resume to go on"
                        : "interrupted; no unfinished output is kept");
}

}  // namespace longstrand::pipelines
