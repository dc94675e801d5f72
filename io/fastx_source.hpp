// FASTA and FASTQ as a stream.
//
// Sequence lines may have any length, and lengths that differ; white space inside them is dropped; CRLF and a
// missing last newline are fine. What samtools faidx refuses, we refuse: text before the first '>' or '@' (so
// also ';' comments), bases after a blank line. Beyond samtools, empty records are read. FASTQ may be
// wrapped; a record's quality must have as many characters, '!' to '~', as its sequence.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/byte_stream.hpp"
#include "io/sequence_source.hpp"

namespace longstrand::io {

class FastxSource final : public SequenceSource {
 public:
  // kind is fasta or fastq
  FastxSource(ByteStream input, SequenceKind kind);

  bool next_record(RecordInfo& record) override;
  std::int64_t read_bases(std::span<char> out) override;
  SequenceKind kind() const override { return kind_; }
  double share_read() const override { return input_.share_read(); }

 private:
  bool find_header();
  void read_header(RecordInfo& record);
  bool begin_sequence_line(char first);
  void end_sequence_at_eof();
  void skip_record();
  void skip_quality();
  [[noreturn]] void fail(std::string_view what) const;

  ByteStream input_;
  SequenceKind kind_;
  std::string line_;         // a header or separator line, reused
  std::string record_name_;  // for messages
  std::int64_t line_number_ = 1;
  std::int64_t sequence_length_ = 0;  // bases of the current record so far
  bool in_sequence_ = false;
  bool at_line_start_ = true;
  bool after_blank_line_ = false;
  bool quality_pending_ = false;
  std::vector<char> skipped_;  // where bases go that nobody asked for
};

}  // namespace longstrand::io
