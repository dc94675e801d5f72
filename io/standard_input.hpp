#pragma once

namespace longstrand::io {

// A descriptor to read standard input with, which the caller owns; -1 with errno where there is none. A pipe
// or a terminal may stay silent for ever, and HTSlib waits for it whatever happens: it is read by a thread
// that hands it on until stop_waiting() is called.
int open_standard_input();

}  // namespace longstrand::io
