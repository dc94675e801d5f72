// Reads of SAM, BAM and CRAM files, in the orientation in which they were sequenced (a reverse complement is
// undone). The reference of a CRAM file is the one given in the options: what its header names (UR, M5) is
// never looked up, locally or remotely.
#pragma once

#include <cstdint>
#include <string>

#include "io/htslib.hpp"
#include "io/sequence_source.hpp"

namespace longstrand::io {

class AlignmentSource final : public SequenceSource {
 public:
  // kind is sam, bam or cram; file has not been read from yet.
  AlignmentSource(HFilePtr file, std::string path, SequenceKind kind, const SourceOptions& options);

  bool next_record(RecordInfo& record) override;
  std::int64_t read_bases(std::span<char> out) override;
  SequenceKind kind() const override { return kind_; }

 private:
  void read_header();
  void set_cram_options();
  void find_regions();
  void start_threads();
  bool read_record();
  bool at_clean_end() const;
  [[noreturn]] void fail_to_decode() const;

  std::string path_;
  SequenceKind kind_;
  SourceOptions options_;
  HtsFilePtr file_;
  SamHeaderPtr header_;
  HtsIndexPtr index_;        // with regions only
  HtsIteratorPtr iterator_;  // with regions only
  BamRecordPtr record_;
  std::int64_t records_read_ = 0;
  std::int64_t next_base_ = 0;  // of the current record, in the order of delivery
};

}  // namespace longstrand::io
