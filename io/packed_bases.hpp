// The 4-bit bases of a BAM record as letters.
#pragma once

#include <cstdint>
#include <span>

namespace longstrand::io {

// out[i] = letter of base begin + i of packed, two bases a byte, the first in the high half.
void unpack_bases(const std::uint8_t* packed, std::int64_t begin, std::span<char> out);

// The same of the reverse complement of packed, which has length bases.
void unpack_reverse_complement(const std::uint8_t* packed, std::int64_t length, std::int64_t begin,
                               std::span<char> out);

}  // namespace longstrand::io
