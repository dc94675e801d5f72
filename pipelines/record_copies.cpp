#include "pipelines/record_copies.hpp"

#include <algorithm>

#include "io/alphabet.hpp"

namespace longstrand::pipelines {

namespace {

void reverse_complement(std::span<std::uint8_t> tokens) {
  std::ranges::reverse(tokens);
  std::ranges::transform(tokens, tokens.begin(), io::complement);
}

char other(char strand) { return strand == '-' ? '+' : '-'; }

// Of two copies, [a, b, c] becomes [a, a, b, b, c, c], in blocks of `width`.
template <class T>
void repeat_blocks(std::vector<T>& values, std::size_t width, std::int64_t copies) {
  const auto times = static_cast<std::size_t>(copies);
  values.resize(times * values.size());
  for (std::size_t block = values.size() / width; block-- > 0;) {
    std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(block / times * width), width,
                values.begin() + static_cast<std::ptrdiff_t>(block * width));
  }
}

}  // namespace

bool RecordCopies::next(TokenBatch& batch) {
  if (copy_ > 0) {
    fill_from_spool(batch);
  } else if (!reader_.next(batch)) {
    return false;
  } else if (batch.lanes > 1) {
    copy_lanes(batch);
  } else {
    read_record(batch);
  }
  return true;
}

void RecordCopies::read_record(TokenBatch& batch) {
  if (rule_.copies() > 1) {
    if (batch.starts[0]) spool_.clear();
    spool_.append(std::span(batch.tokens).first(static_cast<std::size_t>(batch.valid[0])));
    if (batch.ends[0]) {
      copy_ = 1;
      length_ = batch.length;
      left_ = spool_.size();
      origin_ = origin_of(batch);
    }
  }
  batch.targets.clear();
  mask(batch, 0, 0);
}

// Every lane holds a whole record.
void RecordCopies::copy_lanes(TokenBatch& batch) const {
  const std::int64_t copies = rule_.copies();
  BatchOrigin& origin = origin_of(batch);
  repeat_blocks(batch.tokens, static_cast<std::size_t>(batch.length), copies);
  for (auto* flags : {&batch.starts, &batch.ends}) repeat_blocks(*flags, 1, copies);
  for (auto* counts : {&batch.valid, &origin.offset, &origin.file_index}) repeat_blocks(*counts, 1, copies);
  repeat_blocks(origin.records, 1, copies);
  batch.lanes *= copies;
  batch.targets.clear();
  for (std::int64_t lane = 0; lane < batch.lanes; ++lane) {
    const std::int64_t copy = lane % copies;
    if (is_reversed(copy)) {
      reverse_complement(std::span(batch.tokens)
                             .subspan(static_cast<std::size_t>(lane * batch.length),
                                      static_cast<std::size_t>(batch.valid[lane])));
      origin.records[lane].strand = other(origin.records[lane].strand);
    }
    mask(batch, lane, copy);
  }
}

void RecordCopies::fill_from_spool(TokenBatch& batch) {
  const std::int64_t count = std::min(left_, length_);
  const std::int64_t done = spool_.size() - left_;
  batch.lanes = 1;
  batch.length = length_;
  batch.tokens.resize(static_cast<std::size_t>(length_));
  batch.valid = {count};
  batch.starts = {static_cast<std::uint8_t>(done == 0)};
  batch.ends = {static_cast<std::uint8_t>(left_ == count)};
  batch.tag = origin_;
  BatchOrigin& origin = origin_of(batch);
  origin.offset = {done};

  const auto tokens = std::span(batch.tokens).first(static_cast<std::size_t>(count));
  if (is_reversed(copy_)) {
    spool_.read(left_ - count, tokens);
    reverse_complement(tokens);
    origin.records[0].strand = other(origin.records[0].strand);
  } else {
    spool_.read(done, tokens);
  }
  std::fill(batch.tokens.begin() + count, batch.tokens.end(), io::kPad);
  batch.targets.clear();
  mask(batch, 0, copy_);

  left_ -= count;
  if (left_ > 0) return;
  left_ = spool_.size();
  copy_ = (copy_ + 1) % rule_.copies();
}

void RecordCopies::mask(TokenBatch& batch, std::int64_t lane, std::int64_t copy) const {
  const std::int64_t rounds = rule_.mask_rounds;
  if (rounds == 0) return;
  batch.targets.resize(batch.tokens.size(), kNoTargetToken);
  const std::int64_t begin = lane * batch.length;
  const std::int64_t offset = origin_of(batch).offset[lane];
  // The first t with (offset + t) % rounds == copy % rounds.
  for (std::int64_t t = ((copy - offset) % rounds + rounds) % rounds; t < batch.valid[lane]; t += rounds) {
    std::uint8_t& token = batch.tokens[begin + t];
    if (!io::is_base(token)) continue;
    batch.targets[begin + t] = token;
    token = io::kMask;
  }
}

}  // namespace longstrand::pipelines
