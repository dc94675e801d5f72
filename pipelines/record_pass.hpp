// One pass of a model over records: chunks in, one call for every chunk out, with progress, and stopped by
// Ctrl-C.
#pragma once

#include <functional>
#include <string>

#include "io/chunk_stream.hpp"
#include "pipelines/token_batches.hpp"
#include "src/inference.hpp"

namespace longstrand::pipelines {

struct RecordPass {
  std::string label;          // of the progress bar
  bool both_strands = false;  // every record is followed by its reverse complement (both_strands.hpp)
  bool resumable = false;     // what Ctrl-C tells the user
};

/// Runs `inference` over `stream`, which must have one lane, and calls `deliver` for its chunks in order.
/// Logs the speed. Throws Interrupted after Ctrl-C, and what reading, the model or `deliver` throw.
void run_records(Inference& inference, io::ChunkStream stream, const RecordPass& pass,
                 const std::function<void(const ChunkResult&)>& deliver);

/// The record in lane 0 of a batch.
inline const io::RecordInfo& record_of(const ChunkResult& result) {
  return origin_of(result.batch).records[0];
}
/// True if the record in lane 0 is complete, so that its row of `records` is there.
inline bool ends_record(const ChunkResult& result) { return result.batch.ends[0] != 0; }

}  // namespace longstrand::pipelines
