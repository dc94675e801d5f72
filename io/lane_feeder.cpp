#include "io/lane_feeder.hpp"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

namespace longstrand::io {
namespace {

// So much that a window fits, and the reader is free for the next lane, but not for windows as long as
// memory.
std::int64_t buffer_tokens(const ChunkStreamOptions& options) {
  constexpr std::int64_t kMostOfAllLanes = std::int64_t{512} << 20;
  const std::int64_t of_window = std::min(options.window, kMostOfAllLanes / options.lanes);
  return std::max({kLaneBufferTokens, options.chunk_tokens + 1, of_window + 1});
}

}  // namespace

LaneFeeder::LaneFeeder(const std::vector<ChunkInput>& inputs, const ChunkStreamOptions& options)
    : lane_count_(options.lanes),
      chunk_tokens_(options.chunk_tokens),
      buffer_tokens_(buffer_tokens(options)),
      reader_(make_token_reader(inputs, options)),
      lanes_(static_cast<std::size_t>(options.lanes)) {
  allocate_buffers();
  TokenRecord skipped;
  for (std::int64_t i = 0; i < options.skip_records && reader_->next_record(skipped); ++i) continue;
}

// The buffers begin at different offsets within a page: at equal ones, short records in many lanes would all
// fight for the same few sets of the cache.
void LaneFeeder::allocate_buffers() {
  constexpr std::int64_t kStagger = 5 * 64;  // cache lines of a short record and some more
  const std::int64_t stride = buffer_tokens_ + kStagger;
  memory_ =
      std::make_unique_for_overwrite<std::uint8_t[]>(static_cast<std::size_t>(2 * lane_count_ * stride));
  std::uint8_t* next = memory_.get();
  for (Lane& lane : lanes_) {
    lane.tokens = std::exchange(next, next + stride);
    lane.soft_mask = std::exchange(next, next + stride);
  }
}

bool LaneFeeder::fill(TokenChunk& chunk) {
  chunk.resize(lane_count_, chunk_tokens_);
  bool any = false;
  for (std::int64_t b = 0; b < lane_count_; ++b) {
    Lane& lane = lanes_[static_cast<std::size_t>(b)];
    if (!lane.active) begin_record(lane);
    any = any || lane.active;
    deliver(lane, b, chunk);
  }
  chunk.expected_tokens = reader_->expected_tokens();
  return any;
}

// Leaves the lane inactive if there is no record left, or if reader_ is inside another lane's record.
void LaneFeeder::begin_record(Lane& lane) {
  if (!reader_is_free_ || !reader_->next_record(lane.record)) return;
  lane.active = true;
  lane.read_to_end = false;
  lane.used = lane.filled = lane.offset = 0;
  refill(lane);
}

// Moves what is left to the front and fills the rest of the buffer.
void LaneFeeder::refill(Lane& lane) {
  const auto left = static_cast<std::size_t>(lane.filled - lane.used);
  std::memmove(lane.tokens, lane.tokens + lane.used, left);
  std::memmove(lane.soft_mask, lane.soft_mask + lane.used, left);
  const auto room = static_cast<std::size_t>(buffer_tokens_) - left;
  const std::int64_t count = reader_->read({lane.tokens + left, room}, {lane.soft_mask + left, room});
  lane.used = 0;
  lane.filled = static_cast<std::int64_t>(left) + count;
  lane.read_to_end = count < static_cast<std::int64_t>(room);
  reader_is_free_ = lane.read_to_end;
}

void LaneFeeder::deliver(Lane& lane, std::int64_t b, TokenChunk& chunk) {
  // One token beyond the chunk tells whether the record ends with it.
  if (lane.active && !lane.read_to_end && lane.filled - lane.used <= chunk_tokens_) refill(lane);
  const std::int64_t count = lane.active ? std::min(chunk_tokens_, lane.filled - lane.used) : 0;
  const auto bytes = static_cast<std::size_t>(count);
  const auto padding = static_cast<std::size_t>(chunk_tokens_ - count);
  std::uint8_t* tokens = chunk.tokens.data() + b * chunk_tokens_;
  std::uint8_t* soft_mask = chunk.soft_mask.data() + b * chunk_tokens_;
  if (count > 0) {
    std::memcpy(tokens, lane.tokens + lane.used, bytes);
    std::memcpy(soft_mask, lane.soft_mask + lane.used, bytes);
  }
  std::memset(tokens + count, kPad, padding);
  std::memset(soft_mask + count, 0, padding);
  const auto at = static_cast<std::size_t>(b);
  const bool ends = lane.active && lane.read_to_end && lane.used + count == lane.filled;
  if (ends) lane.record.info.length = lane.offset + count;
  chunk.valid[at] = count;
  chunk.starts[at] = lane.active && lane.offset == 0;
  chunk.ends[at] = ends;
  chunk.offset[at] = lane.active ? lane.offset : 0;
  chunk.record_index[at] = lane.active ? lane.record.index : -1;
  chunk.file_index[at] = lane.active ? lane.record.file_index : -1;
  if (lane.active) chunk.records[at] = lane.record.info;
  lane.used += count;
  lane.offset += count;
  if (ends) lane.active = false;
}

}  // namespace longstrand::io
