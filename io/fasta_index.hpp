// The indexes beside a FASTA file: .fai (where each sequence stands) and, for bgzf, .gzi (where each block
// begins). Read here and not by HTSlib's faidx, which aborts the program when an index belongs to another
// version of the file, gives lengths as int, and delivers a sequence whole.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace longstrand::io {

// Throws InputError, naming the command that makes them, unless .fai and, for bgzf, .gzi are beside path.
void require_fasta_index(const std::string& path, bool is_bgzf);

class FastaIndex {
 public:
  struct Sequence {
    std::int64_t length = 0;  // bases
    std::int64_t offset = 0;  // of the first base, in the decompressed file
    std::int64_t line_bases = 0;
    std::int64_t line_bytes = 0;  // line_bases and the line end
  };

  struct StoredPosition {
    std::int64_t block = 0;   // offset in the file as it is stored
    std::int64_t within = 0;  // bytes to pass from there, decompressed
  };

  // Throws InputError if an index is missing or malformed, naming the command that makes it.
  FastaIndex(const std::string& path, bool is_bgzf);

  // nullptr if there is none of that name. Of equal names the first counts, as in samtools.
  const Sequence* find(const std::string& name) const;

  // position < sequence.length
  StoredPosition locate(const Sequence& sequence, std::int64_t position) const;

 private:
  struct Block {
    std::int64_t stored;        // offset in the file as it is stored
    std::int64_t decompressed;  // offset in its decompressed content
  };

  void read_fai(const std::string& path);
  void read_gzi(const std::string& path);

  std::unordered_map<std::string, Sequence> sequences_;
  std::vector<Block> blocks_;  // ascending; empty for plain files
};

}  // namespace longstrand::io
