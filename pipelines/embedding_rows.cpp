#include "pipelines/embedding_rows.hpp"

namespace longstrand::pipelines {

void EmbeddingRows::add_record(const io::RecordInfo& record, char strand, std::span<const float> values) {
  const io::ObsRow row{.record = record.name,
                       .start = record.begin,
                       .end = record.begin + record.length,
                       .strand = strand,
                       .length = record.length};
  add(row, values);
}

void EmbeddingRows::add_tokens(const io::RecordInfo& record, std::int64_t offset, std::int64_t count,
                               std::span<const float> values) {
  const std::int64_t start = record.begin + offset;
  add({.record = record.name, .start = start, .end = start + count}, values);
}

void EmbeddingRows::add(const io::ObsRow& row, std::span<const float> values) {
  if (names_.empty() || names_.back() != row.record) names_.emplace_back(row.record);
  rows_.push_back(row);
  rows_.back().record = names_.back();
  values_.insert(values_.end(), values.begin(), values.end());
  if (values_.size() >= kBlockValues || Clock::now() - last_flush_ >= kBlockAge) flush();
}

void EmbeddingRows::flush() {
  if (!rows_.empty()) writer_.append(rows_, values_);
  rows_.clear();
  values_.clear();
  names_.clear();
  last_flush_ = Clock::now();
}

}  // namespace longstrand::pipelines
