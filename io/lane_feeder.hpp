// Deals the records of a TokenReader out to lanes and cuts them into chunks. Used by ChunkStream, on its
// thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "io/chunk_stream.hpp"
#include "io/token_reader.hpp"

namespace longstrand::io {

class LaneFeeder {
 public:
  // inputs must outlive the feeder.
  LaneFeeder(const std::vector<ChunkInput>& inputs, const ChunkStreamOptions& options);

  // Shapes chunk and fills every lane; false if nothing was left for any.
  bool fill(TokenChunk& chunk);

 private:
  // The tokens [used, filled) of the buffer are read and not yet delivered. The memory is only touched as far
  // as records need it.
  struct Lane {
    TokenRecord record;
    std::uint8_t* tokens = nullptr;     // [buffer_tokens_], in memory_
    std::uint8_t* soft_mask = nullptr;  // [buffer_tokens_], in memory_
    std::int64_t used = 0;
    std::int64_t filled = 0;
    std::int64_t offset = 0;   // in the record, of the next token to deliver
    bool active = false;       // holds a record
    bool read_to_end = false;  // the buffer holds the rest of the record
  };

  void allocate_buffers();
  void begin_record(Lane& lane);
  void refill(Lane& lane);
  void deliver(Lane& lane, std::int64_t b, TokenChunk& chunk);

  std::int64_t lane_count_;
  std::int64_t chunk_tokens_;
  std::int64_t buffer_tokens_;
  std::unique_ptr<TokenReader> reader_;  // of all lanes
  bool reader_is_free_ = true;           // not inside a long record that a lane still reads
  std::unique_ptr<std::uint8_t[]>
      memory_;  // the buffers of all lanes; touched only as far as records need it
  std::vector<Lane> lanes_;
};

}  // namespace longstrand::io
