#include "io/stop.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>

namespace longstrand::io {
namespace {

// A signal handler can reach nothing but globals.
std::atomic<bool> stopped = false;
std::atomic<int> wake_descriptor = -1;  // the other end of stop_descriptor()
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

void wake() noexcept {
  const int error = errno;
  [[maybe_unused]] const ssize_t written = ::write(wake_descriptor, "", 1);
  errno = error;
}

int make_stop_descriptor() noexcept {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return -1;
  wake_descriptor = ends[1];
  if (stopped) wake();
  return ends[0];
}

}  // namespace

void stop_waiting() noexcept {
  stopped = true;
  if (wake_descriptor >= 0) wake();
}

bool may_wait(int descriptor) noexcept {
  struct stat status {};
  return ::fstat(descriptor, &status) == 0 &&
         (S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode) || S_ISCHR(status.st_mode));
}

int stop_descriptor() noexcept {
  static const int descriptor = make_stop_descriptor();
  return descriptor;
}

}  // namespace longstrand::io
