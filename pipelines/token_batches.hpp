// The seam between io and src: chunks as they are read become batches as the model takes them.
#pragma once

#include <cstdint>
#include <vector>

#include "io/chunk_stream.hpp"
#include "src/inference.hpp"

namespace longstrand::pipelines {

/// Where the tokens of a batch come from, as in io::TokenChunk; the vectors have one element a lane.
struct BatchOrigin {
  std::vector<std::int64_t> offset;
  std::vector<std::int64_t> file_index;
  std::vector<io::RecordInfo> records;
  std::int64_t expected_tokens = -1;  // of the whole stream, on one strand
};

/// A chunk stream as Inference::run takes it.
class BatchReader {
 public:
  explicit BatchReader(io::ChunkStream stream) : stream_(std::move(stream)) {}

  /// The next chunk, with a BatchOrigin as its tag; false at the end of the input. The buffers that `batch`
  /// came with are used again. Throws what io::ChunkStream throws.
  bool next(TokenBatch& batch);

 private:
  io::ChunkStream stream_;
  io::TokenChunk chunk_;
};

/// Of a batch that came from a BatchReader.
const BatchOrigin& origin_of(const TokenBatch& batch);
BatchOrigin& origin_of(TokenBatch& batch);

}  // namespace longstrand::pipelines
