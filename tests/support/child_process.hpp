// Work in a child process: for limits, signals and kills that must not hit the test itself.
#pragma once

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <stdexcept>
#include <string>

namespace longstrand::test {

// The child exits with what the body returns, 99 if it throws; it runs no destructors of the test's objects.
inline pid_t fork_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      ::_exit(body());
    } catch (...) {
      ::_exit(99);
    }
  }
  return child;
}

// Waits for the child's end; the status is as for waitpid(2).
inline int wait_for(pid_t child, rusage* usage = nullptr) {
  int status = 0;
  rusage ignored{};
  ::wait4(child, &status, 0, usage != nullptr ? usage : &ignored);
  return status;
}

// Stands for a full disk: writes beyond this many bytes of a file fail from now on, in this process.
inline void limit_file_size(rlim_t bytes) {
  ::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{bytes, bytes};
  ::setrlimit(RLIMIT_FSIZE, &limit);
}

// The message of the exception that the call throws; empty if it throws none.
inline std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

}  // namespace longstrand::test
