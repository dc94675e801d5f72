#pragma once

namespace longstrand::io {

// A descriptor to read standard input with, which the caller owns; -1 with errno where there is none. A pipe
// or a terminal may stay silent for ever, and HTSlib waits for it whatever happens: it is read by a thread
// that hands it on until end_standard_input() is called.
int open_standard_input();

// From now on whoever reads standard input finds its end. For signal handlers; does nothing where it is not
// being read, or is a file.
void end_standard_input() noexcept;

}  // namespace longstrand::io
