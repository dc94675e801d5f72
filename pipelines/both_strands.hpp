// Every record twice: as it was read, and then its reverse complement.
#pragma once

#include "pipelines/token_batches.hpp"
#include "pipelines/token_spool.hpp"

namespace longstrand::pipelines {

/// A record's reverse complement has the other strand in its io::RecordInfo and all else the same. Of a
/// bundle of whole records, it is in the lane behind the record's. Else it follows in batches of its own,
/// directly behind those of the record; a record longer than the spool's memory goes through a temporary
/// file.
class BothStrands {
 public:
  /// `reader` must outlive it and deliver one lane or bundles.
  explicit BothStrands(BatchReader& reader) : reader_(reader) {}

  /// As BatchReader::next.
  bool next(TokenBatch& batch);

 private:
  void add_reverse_complements(TokenBatch& batch);
  void fill_with_reverse_complement(TokenBatch& batch);

  BatchReader& reader_;
  TokenSpool spool_;  // of the record being read, or of the one being replayed
  bool replaying_ = false;
  std::int64_t length_ = 0;  // T of the record's batches
  std::int64_t left_ = 0;    // tokens of the spool not yet replayed
  BatchOrigin origin_;       // of the record's last batch
};

}  // namespace longstrand::pipelines
