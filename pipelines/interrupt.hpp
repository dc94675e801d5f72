// Ctrl-C and SIGTERM as a flag that is looked at between chunks and steps, so that what is finished is kept.
#pragma once

#include <stdexcept>

namespace longstrand::pipelines {

/// The user stopped the command; what() says what was kept and how to go on. Exit code 1, like any other end
/// before the work is done.
class Interrupted : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// From here on the first SIGINT or SIGTERM raises the flag, and has nobody wait for other programs
/// (io::stop_waiting): who has read standard input to an end looks at the flag before he believes it. One
/// that comes a second or more later kills. Writing to a closed pipe or past a file size limit becomes an
/// error of that write instead of a signal.
void install_signal_handlers();

/// Throws Interrupted if the flag is up; `resumable`: the message says that --resume goes on.
void stop_if_interrupted(bool resumable);

}  // namespace longstrand::pipelines
