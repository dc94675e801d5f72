// Include before any header of Highway: the instruction sets for which the CPU operations are compiled. The
// best one that the machine has is chosen at run time. Each costs a compilation of every operation, so those
// are left out whose machines also have, or nearly all have, another one of the list: x86-64 gets its
// baseline, AVX2 and AVX-512; arm64 gets NEON.
#pragma once

#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
