#pragma once

namespace longstrand::io {

// From now on nobody waits for other programs: standard input has ended for those who read it, where it may
// be silent, and writing to a pipe that nobody empties is an error. For signal handlers.
void stop_waiting() noexcept;

// Whether reading or writing may wait for another program, or for somebody who types.
bool may_wait(int descriptor) noexcept;

// Can be read, for poll(2), from the call of stop_waiting() on; nobody is to read it. -1 where there are no
// descriptors left.
int stop_descriptor() noexcept;

}  // namespace longstrand::io
