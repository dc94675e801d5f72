// For tests that make a library leak.
#pragma once

namespace longstrand::io::fixtures {

/// Set where HTSlib meets a damaged block with a decompression thread: HTSlib 1.16 then keeps 32 bytes,
/// allocated on its thread in a function without a name in Debian's library. The process is not checked for
/// leaks at its end; under CTest every test has one of its own.
extern bool htslib_threads_leak;

}  // namespace longstrand::io::fixtures
