// From a chunk's hidden rows to what Inference delivers. Lanes carry what spans chunks: the running pool, and
// the logits of the last token, which predict the next chunk's first.
#pragma once

#include <vector>

#include "src/backbone.hpp"
#include "src/classifier_head.hpp"
#include "src/inference.hpp"

namespace longstrand {

template <class T>
class ReadoutStage {
 public:
  ReadoutStage(const Model& model, const Backbone<T>& backbone, const InferenceOptions& options);

  /// How many layers must have run before.
  int layers() const { return layers_; }
  std::int64_t width() const;
  /// Takes over residual and hidden (both [B, T, D]) of the last of those layers. `valid` [B].
  void run(const TokenBatch& batch, View<const std::uint8_t, 2> tokens, View<const std::int64_t, 1> valid,
           View<float, 3> residual, View<T, 3> hidden, const std::function<void(const ChunkResult&)>& deliver,
           Context& context);
  /// Forgets all lanes.
  void reset(std::int64_t lanes);

 private:
  bool needs_logits() const;
  void add_log_likelihood(const TokenBatch& batch, View<const std::uint8_t, 2> tokens,
                          View<const std::int64_t, 1> valid, View<const float, 3> logits, Context& context);
  template <class E>
  void add_to_pool(const TokenBatch& batch, View<const E, 3> features, View<const std::int64_t, 1> valid,
                   Context& context);
  View<const float, 2> finished_records(const TokenBatch& batch, Context& context) const;

  const Backbone<T>& backbone_;
  InferenceOptions options_;
  std::optional<ClassifierHead> head_;
  Pooling pooling_;
  int layers_;
  std::int64_t features_width_;

  Array<double, 2> pooled_;                 // [B, features_width]
  std::vector<std::int64_t> length_;        // [B]  tokens pooled so far
  Array<float, 2> last_logits_;             // [B, V]  of the lane's last token
  std::vector<double> log_likelihood_;      // [B]
  std::vector<std::int64_t> scored_bases_;  // [B]
};

}  // namespace longstrand
