#include "pipelines/token_batches.hpp"

#include <any>
#include <cassert>
#include <utility>

namespace longstrand::pipelines {

bool BatchReader::next(TokenBatch& batch) {
  if (!batch.tag.has_value()) batch.tag = BatchOrigin{};
  BatchOrigin& origin = origin_of(batch);
  // Swapped before reading, the chunk gets the batch's old buffers; swapped after, the batch gets the new
  // content.
  const auto swap_buffers = [&] {
    chunk_.tokens.swap(batch.tokens);
    chunk_.valid.swap(batch.valid);
    chunk_.starts.swap(batch.starts);
    chunk_.ends.swap(batch.ends);
    chunk_.offset.swap(origin.offset);
    chunk_.file_index.swap(origin.file_index);
    chunk_.records.swap(origin.records);
  };
  swap_buffers();
  const bool more = stream_.next(chunk_);
  swap_buffers();
  batch.lanes = chunk_.lanes;
  batch.length = chunk_.length;
  origin.expected_tokens = chunk_.expected_tokens;
  return more;
}

const BatchOrigin& origin_of(const TokenBatch& batch) {
  const auto* origin = std::any_cast<BatchOrigin>(&batch.tag);
  assert(origin != nullptr && "a batch that did not come from a BatchReader");
  return *origin;
}

BatchOrigin& origin_of(TokenBatch& batch) {
  return const_cast<BatchOrigin&>(origin_of(std::as_const(batch)));
}

}  // namespace longstrand::pipelines
