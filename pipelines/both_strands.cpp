#include "pipelines/both_strands.hpp"

#include <algorithm>
#include <any>
#include <cassert>

#include "io/alphabet.hpp"

namespace longstrand::pipelines {

bool BothStrands::next(TokenBatch& batch) {
  if (replaying_) {
    fill_with_reverse_complement(batch);
    return true;
  }
  if (!reader_.next(batch)) return false;
  assert(batch.lanes == 1);
  if (batch.starts[0]) spool_.clear();
  spool_.append(std::span(batch.tokens).first(static_cast<std::size_t>(batch.valid[0])));
  if (batch.ends[0]) {
    replaying_ = true;
    length_ = batch.length;
    left_ = spool_.size();
    origin_ = origin_of(batch);
  }
  return true;
}

void BothStrands::fill_with_reverse_complement(TokenBatch& batch) {
  const std::int64_t count = std::min(left_, length_);
  batch.lanes = 1;
  batch.length = length_;
  batch.tokens.resize(static_cast<std::size_t>(length_));
  const auto tokens = std::span(batch.tokens).first(static_cast<std::size_t>(count));
  spool_.read(left_ - count, tokens);
  std::ranges::reverse(tokens);
  std::ranges::transform(tokens, tokens.begin(), io::complement);
  std::fill(batch.tokens.begin() + count, batch.tokens.end(), io::kPad);

  batch.valid = {count};
  batch.starts = {static_cast<std::uint8_t>(left_ == spool_.size())};
  BatchOrigin origin = origin_;
  origin.offset = {spool_.size() - left_};
  origin.records[0].strand = origin.records[0].strand == '-' ? '+' : '-';
  batch.tag = std::move(origin);

  left_ -= count;
  batch.ends = {static_cast<std::uint8_t>(left_ == 0)};
  replaying_ = left_ > 0;
}

}  // namespace longstrand::pipelines
