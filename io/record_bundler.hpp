// Puts whole records of a TokenReader side by side, in their order, and cuts only those that are longer than
// a chunk. Used by ChunkStream, on its thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "io/chunk_stream.hpp"
#include "io/token_reader.hpp"

namespace longstrand::io {

class RecordBundler {
 public:
  // inputs must outlive the bundler. options.bundle and options.chunk_tokens say how much a chunk holds.
  RecordBundler(const std::vector<ChunkInput>& inputs, const ChunkStreamOptions& options);

  // Shapes and fills chunk: as many whole records as fit, or a piece of a long one. False at the end.
  bool fill(TokenChunk& chunk);

 private:
  // The tokens [begin, begin + length) of the buffers.
  struct Piece {
    TokenRecord record;
    std::int64_t begin = 0;
    std::int64_t length = 0;
    std::int64_t offset = 0;  // in the record, of the first token
    bool ends = false;        // holds the record's last token, or what there is of an empty one
  };

  bool gather();
  bool read_next();
  void read_into(Piece& piece);
  bool next_fits() const;
  void deliver_bundle(TokenChunk& chunk);
  void deliver_piece(TokenChunk& chunk);
  void write_lane(const Piece& piece, std::int64_t b, TokenChunk& chunk) const;
  void move_next_to_front();

  std::int64_t chunk_tokens_;
  std::int64_t most_records_;
  std::unique_ptr<TokenReader> reader_;
  std::vector<std::uint8_t> tokens_,
      soft_mask_;              // of the bundle's records one after the other, then of next_
  std::vector<Piece> bundle_;  // whole records of the chunk under way
  std::int64_t longest_ = 0;   // of them
  Piece next_;  // read, and not yet delivered; the token beyond a chunk tells whether the record ends
  bool has_next_ = false;
};

}  // namespace longstrand::io
