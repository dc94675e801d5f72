// Every record several times: on both strands, or with some of its bases masked in each copy.
#pragma once

#include <algorithm>

#include "pipelines/token_batches.hpp"
#include "pipelines/token_spool.hpp"

namespace longstrand::pipelines {

/// What the copies of a record are. By default there is one, the record as it was read.
struct CopyRule {
  bool both_strands = false;  // each copy again for the reverse complement, behind those of the record
  /// Copy r of so many has position p masked where p % mask_rounds is r, and the base that stands there among
  /// its targets; other tokens than A, C, G and T stay. Between them the copies of a record and those of its
  /// reverse complement hide the same bases together. 0: no masks.
  std::int64_t mask_rounds = 0;

  std::int64_t copies() const { return copies_of_strand() * (both_strands ? 2 : 1); }
  std::int64_t copies_of_strand() const { return std::max<std::int64_t>(mask_rounds, 1); }
};

/// A reverse complement has the other strand in its io::RecordInfo, copies have all else the same. Of a
/// bundle of whole records, they are side by side in lanes. Else they follow each other in batches of their
/// own; a record longer than the spool's memory goes through a temporary file.
class RecordCopies {
 public:
  /// `reader` must outlive it and deliver one lane or bundles.
  RecordCopies(BatchReader& reader, const CopyRule& rule) : reader_(reader), rule_(rule) {}

  /// As BatchReader::next.
  bool next(TokenBatch& batch);

 private:
  bool is_reversed(std::int64_t copy) const { return copy >= rule_.copies_of_strand(); }
  void read_record(TokenBatch& batch);
  void copy_lanes(TokenBatch& batch) const;
  void fill_from_spool(TokenBatch& batch);
  void mask(TokenBatch& batch, std::int64_t lane, std::int64_t copy) const;

  BatchReader& reader_;
  CopyRule rule_;
  TokenSpool spool_;         // of the record being read, or of the one being copied
  std::int64_t copy_ = 0;    // that comes next, or is under way; 0: the record as it is read
  std::int64_t length_ = 0;  // T of the record's batches
  std::int64_t left_ = 0;    // tokens of the copy that are still to come
  BatchOrigin origin_;       // of the record's last batch
};

}  // namespace longstrand::pipelines
