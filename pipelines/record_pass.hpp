// One pass of a model over records: chunks in, one call for every chunk out, with progress, and stopped by
// Ctrl-C.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <utility>

#include "io/chunk_stream.hpp"
#include "pipelines/record_copies.hpp"
#include "pipelines/token_batches.hpp"
#include "src/inference.hpp"

namespace longstrand::pipelines {

struct RecordPass {
  std::string label;       // of the progress bar
  CopyRule copies = {};    // of every record
  bool resumable = false;  // what Ctrl-C tells the user
};

/// Chunks as `inference` likes them, with records in the order of the input.
io::ChunkStreamOptions chunks_for(const Inference& inference, const RecordPass& pass,
                                  std::int64_t skip_records = 0);

/// Runs `inference` over `stream`, which has one lane or bundles, and calls `deliver` for its chunks in
/// order. Logs the speed. Throws Interrupted after Ctrl-C, and what reading, the model or `deliver` throw.
void run_records(Inference& inference, io::ChunkStream stream, const RecordPass& pass,
                 const std::function<void(const ChunkResult&)>& deliver);

/// The record in a lane of a chunk.
inline const io::RecordInfo& record_of(const ChunkResult& result, std::int64_t lane) {
  return origin_of(result.batch).records[static_cast<std::size_t>(lane)];
}

/// What every chunk's result becomes: `add(result, lane)` for each record that is complete, so that its row
/// of `records` is there, in their order.
template <class Add>
std::function<void(const ChunkResult&)> for_each_record(Add add) {
  return [add = std::move(add)](const ChunkResult& result) mutable {
    for (std::int64_t lane = 0; lane < result.batch.lanes; ++lane) {
      if (result.batch.ends[static_cast<std::size_t>(lane)] != 0) add(result, lane);
    }
  };
}

/// ... `add(result, lane, values)` for each record, of which there are so many copies, with the mean of their
/// rows of `records`; result and lane are those of the last one.
std::function<void(const ChunkResult&)> for_each_mean(
    const CopyRule& rule,
    std::function<void(const ChunkResult& result, std::int64_t lane, std::span<const float> values)> add);

}  // namespace longstrand::pipelines
