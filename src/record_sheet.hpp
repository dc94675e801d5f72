// Whole records side by side in chunks of one size, as a layer-major sweep takes them: position p of a lane
// is in chunk p / T, row p % T; behind a record's end comes padding.
//
// A model of both strands gives every record two lanes: its tokens in lane 2r, their reverse complement in
// lane 2r + 1.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/context.hpp"
#include "kernels/view.hpp"

namespace longstrand {

/// A sheet where the operations of a Context can read it.
struct SheetView {
  View<const std::uint8_t, 3> tokens;   // [chunks, lanes, T]
  View<const std::int32_t, 3> targets;  // [chunks, lanes, T]  classes, or kNoTarget; empty without targets
  View<const std::int64_t, 2> valid;    // [chunks, lanes]     tokens that are no padding
  View<const std::uint8_t, 2> ends;     // [chunks, lanes]     1 where the lane's last token is in the chunk
  View<const std::int64_t, 1> length;   // [lanes]             of the record
};

class RecordSheet {
 public:
  /// Chunks of at most `most_tokens` over all records (but one of each at least), as equal as can be.
  /// `strands` is 1 or 2.
  void start(std::span<const std::int64_t> lengths, int strands, std::int64_t most_tokens, bool with_targets);
  /// A record's tokens from position `begin` on.
  void write(std::int64_t record, std::int64_t begin, std::span<const std::uint8_t> tokens);
  /// What is to be predicted at these positions: a token, or kNoTargetToken.
  void write_targets(std::int64_t record, std::int64_t begin, std::span<const std::uint8_t> targets);
  /// The sheet must stay as it is while the view is in use.
  SheetView upload(Arena& arena, Context& context) const;

  std::int64_t chunks() const { return chunks_; }
  std::int64_t lanes() const { return static_cast<std::int64_t>(length_.size()); }
  std::int64_t records() const { return lanes() / strands_; }
  std::int64_t chunk_tokens() const { return chunk_tokens_; }
  /// Of a record in a chunk.
  std::int64_t valid(std::int64_t chunk, std::int64_t record) const {
    return valid_[chunk * lanes() + record * strands_];
  }

 private:
  std::int64_t index_of(std::int64_t lane, std::int64_t position) const;
  template <class E, class Convert>
  void write_strands(std::int64_t record, std::int64_t begin, std::span<const std::uint8_t> values,
                     std::vector<E>& to, Convert convert) const;

  int strands_ = 1;
  std::int64_t chunks_ = 0;
  std::int64_t chunk_tokens_ = 0;
  std::vector<std::uint8_t> tokens_;
  std::vector<std::int32_t> targets_;
  std::vector<std::int64_t> valid_;
  std::vector<std::uint8_t> ends_;
  std::vector<std::int64_t> length_;
};

}  // namespace longstrand
