// Leaks of libraries under the leak sanitizer, which asks for these functions by name.
#include "leak_suppressions.hpp"

namespace longstrand::io::fixtures {

bool htslib_threads_leak = false;

}  // namespace longstrand::io::fixtures

// HTSlib 1.16 keeps an allocation of hts_itr_multi_cram() when no container of a CRAM file overlaps the
// regions.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:hts_itr_multi_cram\n"; }

extern "C" int __lsan_is_turned_off();
extern "C" int __lsan_is_turned_off() { return longstrand::io::fixtures::htslib_threads_leak ? 1 : 0; }
