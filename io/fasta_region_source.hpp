// Regions of an indexed FASTA file (plain, or bgzf with .gzi), one record each, streamed from where the index
// says. An index of another version of the file is an error wherever a line end is not where it says; a
// region within one line passes no line end and cannot tell.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/byte_stream.hpp"
#include "io/fasta_index.hpp"
#include "io/region.hpp"
#include "io/sequence_source.hpp"

namespace longstrand::io {

class FastaRegionSource final : public SequenceSource {
 public:
  // Throws InputError if the index is missing, naming the command that makes it, or if a region does not
  // exist.
  FastaRegionSource(ByteStream input, const SourceOptions& options);

  bool next_record(RecordInfo& record) override;
  std::int64_t read_bases(std::span<char> out) override;
  SequenceKind kind() const override { return SequenceKind::fasta; }
  double share_read() const override;

 private:
  [[noreturn]] void fail_to_read() const;

  ByteStream input_;
  FastaIndex index_;
  std::vector<Region> regions_;
  std::size_t next_region_ = 0;
  std::int64_t total_bases_ = 0;  // of all regions
  std::int64_t begun_bases_ = 0;  // of the current region and those before it
  std::int64_t missing_ = 0;      // bases of the current region still to come
  std::int64_t line_bases_ = 0;   // of the current sequence
  std::int64_t column_ = 0;       // of the next base, in its line
};

}  // namespace longstrand::io
