// Sequence files as records of bases that arrive in pieces, so that a chromosome on one line needs no more
// memory than a read. open_sequences() looks at the content, never at the name, and picks the reader from one
// table: FASTA and FASTQ (plain, gzip, bgzf; fastx_source), regions of an indexed FASTA
// (fasta_region_source), SAM, BAM and CRAM (alignment_source). A new reader is a file pair and a row of the
// table in sequence_source.cpp.
//
// All errors are InputError (input_error.hpp). The end of a file and a truncated file are different things:
// next_record() returns false only at a clean end; a bgzf, BAM or CRAM file without its end-of-file marker
// and a gzip file without its trailer throw. An empty file throws too: it holds no format, and samtools
// refuses it. Nothing is fetched from the network, whatever a path or a header says.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace longstrand::io {

enum class SequenceKind { fasta, fastq, sam, bam, cram };

// "FASTA", "FASTQ", "SAM", "BAM", "CRAM"
std::string_view kind_name(SequenceKind kind);

struct RecordInfo {
  std::string name;          // up to the first white space of the header line; QNAME
  std::string description;   // the rest of the header line; empty for alignments
  std::int64_t begin = 0;    // 0-based position of the first delivered base in the named sequence
  std::int64_t length = -1;  // bases that will be delivered; -1 where that is unknown before the end
  char strand = '+';         // of the delivered bases; reads come in their original orientation

  // As new, but the strings keep their memory: there are millions of reads.
  void clear() {
    name.clear();
    description.clear();
    begin = 0;
    length = -1;
    strand = '+';
  }
};

class SequenceSource {
 public:
  SequenceSource() = default;
  SequenceSource(const SequenceSource&) = delete;
  SequenceSource& operator=(const SequenceSource&) = delete;
  virtual ~SequenceSource() = default;

  // Moves to the next record, skipping what is left of the current one. False at a clean end of the input,
  // where record is left as it was.
  virtual bool next_record(RecordInfo& record) = 0;

  // The next bases of the current record, as they stand in the file (either case, IUPAC codes included; white
  // space removed). Fills out unless the record ends; returns the number of bases, 0 at the end of the
  // record.
  virtual std::int64_t read_bases(std::span<char> out) = 0;

  virtual SequenceKind kind() const = 0;

  // About the share of the input that has been read, from 0 to 1; kUnknownShare where nothing cheap tells.
  virtual double share_read() const { return kUnknownShare; }
  static constexpr double kUnknownShare = -1;
};

inline constexpr std::uint16_t kFlagSecondary = 0x100;
inline constexpr std::uint16_t kFlagQcFail = 0x200;
inline constexpr std::uint16_t kFlagSupplementary = 0x800;

struct SourceOptions {
  std::string reference{};  // FASTA with .fai, for CRAM; the only place where a reference is looked for

  // SAM flags: a read is delivered if it has none of these.
  std::uint16_t exclude_flags = kFlagSecondary | kFlagQcFail | kFlagSupplementary;

  // Empty: the whole file. Otherwise what region.hpp reads, both together; needs an index (.fai and, for
  // bgzf, .gzi; .bai, .csi or .crai). FASTA gives one record a region, in the order asked; alignments give
  // every overlapping read once, in file order.
  std::vector<std::string> regions{};  // chr:start-end, 1-based inclusive
  std::string regions_file{};          // BED, or tabs 1-based inclusive

  int decompression_threads = 0;  // besides the caller's; for whole bgzf, BAM and CRAM files
};

// "-" reads standard input. Throws InputError if path cannot be read or holds no sequences, naming what it
// holds.
std::unique_ptr<SequenceSource> open_sequences(const std::string& path, const SourceOptions& options = {});

}  // namespace longstrand::io
