#include "io/standard_input.hpp"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <exception>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "io/file_descriptor.hpp"
#include "io/stop.hpp"

namespace longstrand::io {
namespace {

void hand_on(FileDescriptor& out) {
  std::vector<std::byte> buffer(std::size_t{1} << 16);
  for (;;) {
    std::array<pollfd, 2> waiting{{{STDIN_FILENO, POLLIN, 0}, {stop_descriptor(), POLLIN, 0}}};
    if (::poll(waiting.data(), waiting.size(), /*timeout=*/-1) < 0 && errno != EINTR) return;
    if (waiting[1].revents != 0) return;
    if (waiting[0].revents == 0) continue;
    const ssize_t count = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;
    out.write(std::span(buffer).first(static_cast<std::size_t>(count)));
  }
}

void run_relay(FileDescriptor out) {
  sigset_t all;
  sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all,
                    nullptr);  // signals are for the other threads; SIGPIPE is an error of write
  try {
    hand_on(out);
  } catch (const std::exception&) {
    // The reader has closed its end, or all is to stop: nobody wants more.
  }
}

}  // namespace

int open_standard_input() {
  if (!may_wait(STDIN_FILENO)) return ::dup(STDIN_FILENO);
  std::array<int, 2> data{};
  if (::pipe2(data.data(), O_CLOEXEC) != 0) return -1;
  std::thread(run_relay, FileDescriptor(data[1], "standard input")).detach();
  return data[0];
}

}  // namespace longstrand::io
