#include "pipelines/both_strands.hpp"

#include <algorithm>
#include <any>
#include <cassert>

#include "io/alphabet.hpp"

namespace longstrand::pipelines {

namespace {

void reverse_complement(std::span<std::uint8_t> tokens) {
  std::ranges::reverse(tokens);
  std::ranges::transform(tokens, tokens.begin(), io::complement);
}

char other(char strand) { return strand == '-' ? '+' : '-'; }

// [a, b, c] becomes [a, a, b, b, c, c], in blocks of `width`.
template <class T>
void double_blocks(std::vector<T>& values, std::size_t width) {
  values.resize(2 * values.size());
  for (std::size_t block = values.size() / width; block-- > 0;) {
    std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(block / 2 * width), width,
                values.begin() + static_cast<std::ptrdiff_t>(block * width));
  }
}

}  // namespace

bool BothStrands::next(TokenBatch& batch) {
  if (replaying_) {
    fill_with_reverse_complement(batch);
    return true;
  }
  if (!reader_.next(batch)) return false;
  if (batch.lanes > 1) {
    add_reverse_complements(batch);
    return true;
  }
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

// Every lane holds a whole record.
void BothStrands::add_reverse_complements(TokenBatch& batch) {
  auto& origin = *std::any_cast<BatchOrigin>(&batch.tag);
  double_blocks(batch.tokens, static_cast<std::size_t>(batch.length));
  double_blocks(batch.valid, 1);
  double_blocks(batch.starts, 1);
  double_blocks(batch.ends, 1);
  double_blocks(origin.offset, 1);
  double_blocks(origin.file_index, 1);
  double_blocks(origin.records, 1);
  batch.lanes *= 2;
  for (std::int64_t lane = 1; lane < batch.lanes; lane += 2) {
    reverse_complement(std::span(batch.tokens)
                           .subspan(static_cast<std::size_t>(lane * batch.length),
                                    static_cast<std::size_t>(batch.valid[lane])));
    origin.records[lane].strand = other(origin.records[lane].strand);
  }
}

void BothStrands::fill_with_reverse_complement(TokenBatch& batch) {
  const std::int64_t count = std::min(left_, length_);
  batch.lanes = 1;
  batch.length = length_;
  batch.tokens.resize(static_cast<std::size_t>(length_));
  const auto tokens = std::span(batch.tokens).first(static_cast<std::size_t>(count));
  spool_.read(left_ - count, tokens);
  reverse_complement(tokens);
  std::fill(batch.tokens.begin() + count, batch.tokens.end(), io::kPad);

  batch.valid = {count};
  batch.starts = {static_cast<std::uint8_t>(left_ == spool_.size())};
  BatchOrigin origin = origin_;
  origin.offset = {spool_.size() - left_};
  origin.records[0].strand = other(origin.records[0].strand);
  batch.tag = std::move(origin);

  left_ -= count;
  batch.ends = {static_cast<std::uint8_t>(left_ == 0)};
  replaying_ = left_ > 0;
}

}  // namespace longstrand::pipelines
