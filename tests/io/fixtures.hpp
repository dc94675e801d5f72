// Sequence files written for the tests of io, through HTSlib itself.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace longstrand::io::fixtures {

struct Record {
  std::string name;
  std::string bases;

  bool operator==(const Record&) const = default;
};

using Records = std::vector<Record>;

enum class Packing { plain, gzip, bgzf };

// block_bytes: how many bytes go into one bgzf block.
void write_file(const std::string& path, std::string_view content, Packing packing = Packing::plain,
                std::size_t block_bytes = 0xff00);

// width 0: one line a sequence.
std::string as_fasta(const Records& records, std::size_t width = 0, std::string_view line_end = "\n");
std::string as_fastq(const Records& records, std::size_t width = 0, std::string_view line_end = "\n");

struct Alignment {
  std::string name;
  std::string bases;       // as stored, so the reverse complement of the read where flag has 0x10
  std::uint16_t flag = 4;  // unmapped
  std::int64_t position =
      0;  // 0-based, on the one reference sequence; mapped reads match it over their length
};

// mode as for hts_open: "w" SAM, "wz" SAM in bgzf, "wb" BAM, "wc" CRAM. header holds the @-lines. A CRAM file
// is written against reference, a FASTA file, unless that is empty.
void write_alignments(const std::string& path, const std::string& mode, const std::string& header,
                      const std::vector<Alignment>& alignments, const std::string& reference = "");

std::string reverse_complement(std::string_view bases);

// Reproducible letters out of alphabet.
std::string random_bases(std::int64_t count, std::uint64_t seed, std::string_view alphabet = "ACGT");

// Every record of a file, read in pieces of at most piece_bases.
Records read_all(const std::string& path, std::size_t piece_bases = 1 << 16, int decompression_threads = 0);

}  // namespace longstrand::io::fixtures
