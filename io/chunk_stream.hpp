// Records of one or more files as token chunks, B lanes of T tokens, which are the same for all chunks but
// where records are bundled. Reading and tokenising run ahead on a thread of their own, by a bounded number
// of chunks.
//
// A lane holds one record at a time, from its first chunk (starts) to its last (ends), and then takes the
// next record of the input. A record always begins at a chunk's first position; what is left of its last
// chunk holds kPad. Records are numbered in input order, whatever lane they are in. The order of chunks
// depends only on the input and the options.
//
// Memory does not depend on the length of a record: a record of more than kLaneBufferTokens streams. Every
// input is read once, from front to back, so the other lanes get no new record while a long one streams: they
// finish theirs and then idle until it has been read.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "io/alphabet.hpp"
#include "io/sequence_source.hpp"

namespace longstrand::io {

// Letters: B lanes, T tokens of a chunk. A lane without a record (the input has ended, or a long record keeps
// it waiting) has record_index -1, valid 0, and neither starts nor ends. A record without bases has one
// chunk, with valid 0, starts and ends.
struct TokenChunk {
  std::int64_t lanes = 0;                  // B
  std::int64_t length = 0;                 // T
  std::vector<std::uint8_t> tokens;        // [B, T]; kPad from valid[b] on
  std::vector<std::uint8_t> soft_mask;     // [B, T]; 1 where the base was lower case, else 0
  std::vector<std::int64_t> valid;         // [B]; tokens of this chunk that belong to the record, <= T
  std::vector<std::uint8_t> starts;        // [B]; 1 where a record begins in this chunk
  std::vector<std::uint8_t> ends;          // [B]; 1 where it ends in this chunk
  std::vector<std::int64_t> offset;        // [B]; position in the record of the chunk's first token
  std::vector<std::int64_t> record_index;  // [B]; from 0, over all files (windows count as records)
  std::vector<std::int64_t> file_index;    // [B]; which input the record is from; -1 without a record
  // [B]; length is known at the latest where ends is 1. Of a lane without a record: left over, of no meaning.
  std::vector<RecordInfo> records;
  // About the tokens of all chunks of the stream, from the share of the input read when this one was made;
  // -1 where that is unknown. Skipped records are not counted.
  std::int64_t expected_tokens = -1;

  void resize(std::int64_t to_lanes, std::int64_t to_length);
};

struct ChunkStreamOptions {
  std::int64_t lanes = 1;
  std::int64_t chunk_tokens = 1 << 16;
  Ambiguous ambiguous = Ambiguous::n;
  // More than 1, with lanes = 1: records that fit a chunk are not cut, but put side by side, at most this
  // many, one a lane. Then lanes and length change from chunk to chunk, lanes x length is at most
  // chunk_tokens, and records are delivered in input order. A longer record is alone in its chunks.
  std::int64_t bundle = 1;
  std::int64_t queue_chunks = 4;  // chunks that the reading thread may be ahead

  // window > 0: every record is replaced by windows of that many bases, at 0, stride, 2 stride, ... until one
  // reaches its end; begin and length of a window's RecordInfo say where it lies. The last one may be shorter
  // and is dropped if it has fewer than min_window bases. stride 0 means stride = window.
  std::int64_t window = 0;
  std::int64_t stride = 0;
  std::int64_t min_window = 1;

  std::int64_t skip_records = 0;  // records (or windows) to pass over first; record_index still counts them
};

// Records up to this length are read in one go while they wait in a lane.
inline constexpr std::int64_t kLaneBufferTokens = 1 << 18;

// Opens one input; called once.
using SourceFactory = std::function<std::unique_ptr<SequenceSource>()>;

struct ChunkInput {
  std::string path;  // for messages
  SourceFactory open;
  std::int64_t size = -1;  // beside that of the other inputs, in any one unit; -1 where unknown
};

class ChunkStream {
 public:
  // Reads the files one after another. Throws std::invalid_argument for options out of range.
  ChunkStream(const std::vector<std::string>& paths, const SourceOptions& source_options,
              const ChunkStreamOptions& options);
  ChunkStream(std::vector<ChunkInput> inputs, const ChunkStreamOptions& options);
  ChunkStream(ChunkStream&&) noexcept;
  ChunkStream& operator=(ChunkStream&&) noexcept;
  // Stops the reading thread after what it is reading: a lane's buffer, or the rest of a record that is being
  // skipped.
  ~ChunkStream();

  // The next chunk; false at the end of the last file. The buffers that chunk came with are used again, so
  // pass the same object each time. Throws what the reading thread met, after all chunks before it have been
  // delivered: InputError for bad input; an invalid character is named by file, record and position.
  bool next(TokenChunk& chunk);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace longstrand::io
