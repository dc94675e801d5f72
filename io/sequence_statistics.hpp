// What is in a sequence file, in one streaming pass.
#pragma once

#include <cstdint>
#include <string>

#include "io/sequence_source.hpp"

namespace longstrand::io {

struct SequenceStatistics {
  SequenceKind kind = SequenceKind::fasta;
  std::int64_t records = 0;
  std::int64_t bases = 0;  // all characters of the sequences: a + c + g + t + n + other
  std::int64_t a = 0;      // either case
  std::int64_t c = 0;
  std::int64_t g = 0;
  std::int64_t t = 0;  // T and U
  std::int64_t n = 0;
  std::int64_t other = 0;        // IUPAC codes, and characters that are no bases
  std::int64_t soft_masked = 0;  // lower-case letters
  std::int64_t longest = 0;      // bases of the longest record
};

// Throws InputError where the file cannot be read to its end; characters never fail, they count as other.
SequenceStatistics sequence_statistics(const std::string& path, const SourceOptions& options = {});

}  // namespace longstrand::io
