// How an Inference runs inside: one engine a sweep and element type.
#pragma once

#include <memory>

#include "src/inference.hpp"

namespace longstrand {

class Inference::Engine {
 public:
  virtual ~Engine() = default;
  virtual std::int64_t width() const = 0;
  virtual std::int64_t preferred_chunk_tokens() const = 0;
  virtual std::int64_t preferred_lanes() const = 0;
  virtual void run(const std::function<bool(TokenBatch&)>& next,
                   const std::function<void(const ChunkResult&)>& deliver, const Poll& poll) = 0;
  virtual std::size_t peak_bytes() const = 0;
};

/// For mixers of Sweep::chunk_major.
std::unique_ptr<Inference::Engine> make_chunk_major_inference(const Model& model,
                                                              const ExecutionOptions& execution,
                                                              const InferenceOptions& options);
/// For mixers of Sweep::layer_major.
std::unique_ptr<Inference::Engine> make_layer_major_inference(const Model& model,
                                                              const ExecutionOptions& execution,
                                                              const InferenceOptions& options);

}  // namespace longstrand
