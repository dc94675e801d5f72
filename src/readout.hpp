// From a chunk's rows to what Inference delivers, in two steps: compute() puts the work on the device,
// deliver() hands over what came of it, as soon as it is on the host. Lanes carry what spans chunks: the
// running pool, and the logits of the last token, which predict the next chunk's first.
#pragma once

#include <optional>
#include <vector>

#include "kernels/readback.hpp"
#include "kernels/transfer.hpp"
#include "src/backbone.hpp"
#include "src/classifier_head.hpp"
#include "src/inference.hpp"

namespace longstrand {

/// A chunk behind the layers that the readout asks for. Views lie on the model's device. L lanes: one for
/// each of the batch's or, of a model of both strands, two.
template <class T>
struct InferenceChunk {
  const TokenBatch& batch;
  View<const std::uint8_t, 2> tokens;        // [L, T]
  View<const std::int64_t, 1> valid;         // [L]
  View<const std::uint8_t, 1> starts;        // [L]  empty where no lane starts
  View<float, 3> residual;                   // [L, T, D]  of those layers; compute() takes it over
  View<const T, 3> normed;                   // [L, T, D]  of the norm that follows
  View<const std::int32_t, 1> targets = {};  // [L * T]  of Readout::masked_log_likelihood
  View<float, 3> joined = {};                // [L, T, features_width]  where joins_strands()
};

/// A chunk's results on their way to the host.
struct ReadoutLanding {
  Readback<float, 3> tokens;      // [B, T, width]
  Readback<double, 2> pooled;     // [L, width]  sums so far
  Readback<double, 2> surprisal;  // [L, 1]      -log likelihood so far
};

template <class T>
class ReadoutStage {
 public:
  /// `weights` are those that `backbone` has; both must outlive it.
  ReadoutStage(const Model& model, const ParameterStore& weights, const Backbone<T>& backbone,
               const InferenceOptions& options, Context& context);

  /// How many layers must have run before.
  int layers() const { return layers_; }
  std::int64_t width() const;
  /// Whether features() of all chunks of a record have to be put through join_strands() before compute()
  /// takes them chunk by chunk.
  bool joins_strands() const;
  /// The rows that are read out, [L, T, features_width], in `arena` or residual itself, which is taken over.
  View<float, 3> features(View<float, 3> residual, View<const T, 3> normed, Arena& arena,
                          Context& context) const;
  std::int64_t features_width() const { return features_width_; }
  /// features [chunks, L, T, features_width]; length [L] as of a SheetView.
  void join_strands(View<float, 4> features, View<const std::int64_t, 1> length, Context& context) const;
  /// Chunk after chunk. What is on its way lies in `arena`, which must keep it until it has been delivered.
  void compute(const InferenceChunk<T>& chunk, Arena& arena, ReadoutLanding& landing, Context& context);
  /// In the same order. Waits for the device where it must.
  void deliver(const TokenBatch& batch, ReadoutLanding& landing,
               const std::function<void(const ChunkResult&)>& deliver);
  std::size_t size_bytes() const;

 private:
  bool needs_logits() const { return options_.layer == InferenceOptions::kLogits; }
  bool pools() const;
  template <class E>
  void pool(const InferenceChunk<T>& chunk, View<const E, 3> features, Context& context);
  View<const float, 3> first_strands(View<const float, 3> features, Arena& arena, Context& context) const;
  View<double, 2> surprisal_of(const InferenceChunk<T>& chunk, Context& context);
  void add_surprisal(const InferenceChunk<T>& chunk, View<const float, 3> logits, Context& context);
  void add_masked_surprisal(const InferenceChunk<T>& chunk, View<const float, 3> logits, Context& context);
  void add_surprisal_of_first_tokens(const InferenceChunk<T>& chunk, Context& context);
  void count_lanes(const TokenBatch& batch);
  void finish_records(const TokenBatch& batch, View<const double, 2> pooled);

  const Backbone<T>& backbone_;
  InferenceOptions options_;
  std::optional<ClassifierHead> head_;
  Pooling pooling_;
  int layers_;
  int strands_;  // lanes of a record
  std::int64_t features_width_;

  // On the device, for all lanes seen so far.
  Array<double, 2> pooled_;        // [L, features_width]
  Array<double, 2> last_logits_;   // [L, V]  of the lane's last token
  Array<double, 2> surprisal_;     // [L, 1]
  Array<std::int32_t, 1> facing_;  // [width]  as join_facing_strands wants it, for logits
  // On the host.
  std::vector<std::int64_t> length_;        // [B]  tokens of the lane's record so far
  std::vector<std::int64_t> scored_bases_;  // [B]  of Readout::log_likelihood
  std::vector<float> records_;              // [B, width]  of the chunk that is being delivered
};

/// More rows for an array [B, ...] of which lanes have one each. They keep what is in them; new ones are
/// zero.
template <class E>
void reserve_lanes(Array<E, 2>& array, std::int64_t lanes, std::int64_t width, Context& context) {
  const View<E, 2> old = array.view();
  if (old.shape[0] >= lanes) return;
  Array<E, 2> larger({lanes, width}, context.device);
  if (!old.empty()) copy(old, larger.view().slice(0, old.shape[0]), context);
  context.synchronize();  // the old rows are in use until then
  array = std::move(larger);
}

}  // namespace longstrand
