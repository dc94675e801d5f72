#include "io/record_bundler.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace longstrand::io {

RecordBundler::RecordBundler(const std::vector<ChunkInput>& inputs, const ChunkStreamOptions& options)
    : chunk_tokens_(options.chunk_tokens),
      most_records_(options.bundle),
      reader_(make_token_reader(inputs, options)),
      tokens_(static_cast<std::size_t>(2 * chunk_tokens_ + 1)),
      soft_mask_(tokens_.size()) {
  TokenRecord skipped;
  for (std::int64_t i = 0; i < options.skip_records && reader_->next_record(skipped); ++i) continue;
}

bool RecordBundler::fill(TokenChunk& chunk) {
  if (!gather()) return false;
  if (bundle_.empty()) {
    deliver_piece(chunk);
  } else {
    deliver_bundle(chunk);
  }
  chunk.expected_tokens = reader_->expected_tokens();
  return true;
}

// Takes records into the bundle until the next one does not fit, or is a long one. Then, with an empty
// bundle, a piece of that is next. False if nothing is left.
bool RecordBundler::gather() {
  while ((has_next_ || read_next()) && next_fits()) {
    longest_ = std::max(longest_, next_.length);
    bundle_.push_back(std::move(next_));
    has_next_ = false;
  }
  return has_next_ || !bundle_.empty();
}

bool RecordBundler::next_fits() const {
  const std::int64_t records = std::ssize(bundle_) + 1;
  const bool whole = next_.offset == 0 && next_.ends && next_.length <= chunk_tokens_;
  return whole && records <= most_records_ && records * std::max(longest_, next_.length) <= chunk_tokens_;
}

bool RecordBundler::read_next() {
  next_ = {};
  if (!reader_->next_record(next_.record)) return false;
  if (!bundle_.empty()) next_.begin = bundle_.back().begin + bundle_.back().length;
  read_into(next_);
  return has_next_ = true;
}

// Up to a chunk and the token after it.
void RecordBundler::read_into(Piece& piece) {
  const auto end = static_cast<std::size_t>(piece.begin + piece.length);
  const auto room = static_cast<std::size_t>(chunk_tokens_ + 1 - piece.length);
  const std::int64_t count =
      reader_->read(std::span(tokens_).subspan(end, room), std::span(soft_mask_).subspan(end, room));
  piece.length += count;
  piece.ends = count < static_cast<std::int64_t>(room);
}

void RecordBundler::deliver_bundle(TokenChunk& chunk) {
  chunk.resize(std::ssize(bundle_), std::max<std::int64_t>(longest_, 1));
  for (std::int64_t b = 0; b < chunk.lanes; ++b) write_lane(bundle_[static_cast<std::size_t>(b)], b, chunk);
  bundle_.clear();
  longest_ = 0;
  if (has_next_) move_next_to_front();
}

void RecordBundler::deliver_piece(TokenChunk& chunk) {
  Piece piece = next_;
  piece.length = std::min(chunk_tokens_, next_.length);
  piece.ends = next_.ends && piece.length == next_.length;
  chunk.resize(1, std::max<std::int64_t>(piece.length, 1));
  write_lane(piece, 0, chunk);
  has_next_ = !piece.ends;
  if (piece.ends) return;
  next_.begin += piece.length;
  next_.offset += piece.length;
  next_.length -= piece.length;
  move_next_to_front();
  if (!next_.ends) read_into(next_);
}

void RecordBundler::write_lane(const Piece& piece, std::int64_t b, TokenChunk& chunk) const {
  const auto at = static_cast<std::size_t>(b);
  const auto bytes = static_cast<std::size_t>(piece.length);
  const auto padding = static_cast<std::size_t>(chunk.length - piece.length);
  std::uint8_t* tokens = chunk.tokens.data() + b * chunk.length;
  std::uint8_t* soft_mask = chunk.soft_mask.data() + b * chunk.length;
  std::memcpy(tokens, tokens_.data() + piece.begin, bytes);
  std::memcpy(soft_mask, soft_mask_.data() + piece.begin, bytes);
  std::memset(tokens + bytes, kPad, padding);
  std::memset(soft_mask + bytes, 0, padding);
  chunk.valid[at] = piece.length;
  chunk.starts[at] = piece.offset == 0;
  chunk.ends[at] = piece.ends;
  chunk.offset[at] = piece.offset;
  chunk.record_index[at] = piece.record.index;
  chunk.file_index[at] = piece.record.file_index;
  chunk.records[at] = piece.record.info;
  if (piece.ends) chunk.records[at].length = piece.offset + piece.length;
}

void RecordBundler::move_next_to_front() {
  const auto bytes = static_cast<std::size_t>(next_.length);
  std::memmove(tokens_.data(), tokens_.data() + next_.begin, bytes);
  std::memmove(soft_mask_.data(), soft_mask_.data() + next_.begin, bytes);
  next_.begin = 0;
}

}  // namespace longstrand::io
