// Runs a model over token chunks, record by record, state carried from chunk to chunk.
#pragma once

#include <any>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/pooling.hpp"
#include "src/execution.hpp"
#include "src/model.hpp"
#include "src/vocabulary.hpp"

namespace longstrand {

/// One chunk of B lanes x T tokens; lane b holds valid[b] tokens of one record. A record starts at a chunk's
/// first token; a lane takes the next record when the last has ended. B and T may change from chunk to chunk,
/// but a record stays in its lane. A bidirectional model runs when no record is open: what is streamed until
/// then is held in memory, padded to the longest record.
struct TokenBatch {
  std::int64_t lanes = 0;
  std::int64_t length = 0;
  std::vector<std::uint8_t> tokens;  // [B, T]
  std::vector<std::int64_t> valid;   // [B]
  std::vector<std::uint8_t> starts;  // [B]  the lane's record begins here: state and readout start afresh
  std::vector<std::uint8_t> ends;    // [B]  the lane's record ends here
  // [B, T]  what stands there, or kNoTargetToken; only for Readout::masked_log_likelihood
  std::vector<std::uint8_t> targets = {};
  std::any tag;  // the caller's own
};

enum class Readout : std::uint8_t {
  tokens,          // one vector a token
  pooled,          // one vector a record
  log_likelihood,  // of each record under the language model, in nats, over its A, C, G, T after the first
                   // base; of causal models
  masked_log_likelihood,  // of each record's targets given its tokens, in nats; of bidirectional models
  probabilities,          // of the classifier's classes, one vector a record
};

struct InferenceOptions {
  Readout readout = Readout::pooled;
  Pooling pooling = Pooling::mean;  // of Readout::pooled; the classifier brings its own
  std::int64_t layer =
      kFinal;  // 1..n_layer: the residual stream after that layer; kFinal: after the last norm
  static constexpr std::int64_t kFinal = -1;
  static constexpr std::int64_t kLogits = -2;
};

/// What one chunk yields. Views are good during the call only. Rows of lanes that do not end here are
/// undefined, but for `tokens`.
struct ChunkResult {
  const TokenBatch& batch;
  View<const float, 3> tokens;             // [B, longest valid, width]  of Readout::tokens
  View<const float, 2> records;            // [B, width]     of pooled and probabilities
  std::vector<double> log_likelihood;      // [B]
  std::vector<std::int64_t> scored_bases;  // [B]            how many bases or targets log_likelihood is over
};

class Inference {
 public:
  /// The model must outlive it. Throws std::invalid_argument where the model has not what is asked for.
  Inference(const Model& model, const ExecutionOptions& execution, const InferenceOptions& options);
  ~Inference();

  /// Width of the vectors delivered: d_model, padded vocabulary, or classes.
  std::int64_t width() const;
  /// What to stream when the user asked for no other: chunks of at most so many tokens, over all lanes, and
  /// at most so many lanes.
  std::int64_t preferred_chunk_tokens() const;
  std::int64_t preferred_lanes() const;

  /// Calls `next` for chunk after chunk until it returns false, and `deliver` for each in the same order.
  /// Either is called from any thread, never two calls of one at a time. On a GPU, chunks are taken while
  /// others are computed, and delivered while the next are. A bidirectional model calls `poll` in between,
  /// with tokens of the records that it runs.
  void run(const std::function<bool(TokenBatch&)>& next,
           const std::function<void(const ChunkResult&)>& deliver, const Poll& poll = {});

  /// Bytes held for state, activations and scratch at their largest.
  std::size_t peak_bytes() const;

  class Engine;

 private:
  std::unique_ptr<Engine> engine_;
};

}  // namespace longstrand
