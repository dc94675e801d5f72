// Leaks of libraries under the leak sanitizer, which asks for this function by name.

// HTSlib 1.16 keeps an allocation of hts_itr_multi_cram() when no container of a CRAM file overlaps the regions.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:hts_itr_multi_cram\n"; }
