// Regions of an indexed FASTA file (plain, or bgzf with .gzi), one record each, read by pieces through the
// index.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/htslib.hpp"
#include "io/region.hpp"
#include "io/sequence_source.hpp"

namespace longstrand::io {

class FastaRegionSource final : public SequenceSource {
 public:
  // Throws InputError if the index is missing, naming the command that makes it, or if a region does not
  // exist.
  FastaRegionSource(const std::string& path, const SourceOptions& options);

  bool next_record(RecordInfo& record) override;
  std::int64_t read_bases(std::span<char> out) override;
  SequenceKind kind() const override { return SequenceKind::fasta; }

 private:
  void fetch_piece();

  std::string path_;
  FastaIndexPtr index_;
  std::vector<Region> regions_;
  std::size_t next_region_ = 0;
  std::int64_t position_ = 0;  // of the next base to fetch, in the sequence of the current region
  MallocString piece_;
  std::int64_t piece_length_ = 0;
  std::int64_t piece_used_ = 0;
};

}  // namespace longstrand::io
