// Chunks flow through the layers as a wavefront (kernels/wavefront.hpp): stage 0 takes and embeds a chunk, a
// stage a layer follows, the last one reads out. A ring of slots holds the chunks under way.
#include <algorithm>
#include <cassert>
#include <stdexcept>

#include "kernels/wavefront.hpp"
#include "src/backbone.hpp"
#include "src/inference_engine.hpp"
#include "src/readout.hpp"

namespace longstrand {
namespace {

/// Long enough for the products to run at full speed, short enough for a layer's activations to stay in cache
/// (measured from 32 to 256 on Zen 4 and Sapphire Rapids, d_model 256, fp32 and bf16: 128 is the fastest, 64
/// is 5 to 10 % behind).
constexpr std::int64_t kChunk_tokens = 128;

template <class T>
class ChunkMajorInference final : public Inference::Engine {
 public:
  ChunkMajorInference(const Model& model, const ExecutionOptions& execution, const InferenceOptions& options)
      : workers_(execution.threads, execution.device),
        backbone_(model, /*for_backward=*/false, workers_.main_context()),
        readout_(model, backbone_, options),
        chunk_tokens_(execution.chunk_tokens > 0 ? execution.chunk_tokens : kChunk_tokens),
        slots_(static_cast<std::size_t>(execution.threads) + 1) {}

  std::int64_t width() const override { return readout_.width(); }
  std::int64_t preferred_chunk_tokens() const override { return chunk_tokens_; }

  void run(const std::function<bool(TokenBatch&)>& next,
           const std::function<void(const ChunkResult&)>& deliver) override {
    lanes_ = 0;
    const int last_stage = readout_.layers() + 1;
    workers_.run({.items = Workers::kUnbounded,
                  .stages = last_stage + 1,
                  .in_flight = static_cast<int>(slots_.size()),
                  .step = [&](std::int64_t item, int stage, Context& context) {
                    Slot& slot = slots_[static_cast<std::size_t>(item) % slots_.size()];
                    if (stage == 0) return take(slot, next, context);
                    if (stage == last_stage) {
                      readout_.run(slot.batch, slot.tokens(), slot.valid(), residual(slot), hidden(slot),
                                   deliver, context);
                    } else {
                      run_layer(slot, stage - 1, context);
                    }
                    return true;
                  }});
  }

  std::size_t peak_bytes() const override {
    std::size_t total_bytes = static_cast<std::size_t>(state_.view().size()) * sizeof(float);
    for (const Slot& slot : slots_) total_bytes += slot.memory.size_bytes();
    return total_bytes + workers_.scratch_bytes();
  }

 private:
  struct Slot {
    TokenBatch batch;
    std::int64_t length = 0;  // of the longest lane; what lies behind it in the batch is not computed
    Buffer memory;            // residual, then hidden

    View<const std::uint8_t, 2> tokens() const {
      return {batch.tokens.data(), {batch.lanes, length}, {batch.length, 1}, {}};
    }
    View<const std::int64_t, 1> valid() const { return {batch.valid.data(), {batch.lanes}}; }
  };

  View<float, 3> residual(const Slot& slot) const {
    return {reinterpret_cast<float*>(slot.memory.data()), {lanes_, slot.length, backbone_.d_model()}};
  }
  View<T, 3> hidden(const Slot& slot) const {
    const View<float, 3> before = residual(slot);
    return {reinterpret_cast<T*>(before.data + before.size()), before.shape};
  }

  bool take(Slot& slot, const std::function<bool(TokenBatch&)>& next, Context& context) {
    if (!next(slot.batch)) return false;
    TokenBatch& batch = slot.batch;
    if (lanes_ == 0) reset(batch.lanes);
    assert(batch.lanes == lanes_);
    slot.length = std::max<std::int64_t>(1, *std::max_element(batch.valid.begin(), batch.valid.end()));
    const std::size_t needed_bytes =
        static_cast<std::size_t>(batch.lanes * slot.length * backbone_.d_model()) *
        (sizeof(float) + sizeof(T));
    if (slot.memory.size_bytes() < needed_bytes) slot.memory = Buffer(needed_bytes);
    backbone_.embed(slot.tokens(), residual(slot), context);
    return true;
  }

  void reset(std::int64_t lanes) {
    lanes_ = lanes;
    state_ = Array<float, 3>({backbone_.layers(), lanes, backbone_.state_floats()});
    readout_.reset(lanes);
  }

  void run_layer(const Slot& slot, int layer, Context& context) {
    const View<float, 2> state{state_.view().at(layer), {lanes_, backbone_.state_floats()}};
    for (std::int64_t b = 0; b < lanes_; ++b) {
      if (slot.batch.starts[b]) std::fill_n(state.at(b), state.shape[1], 0.0F);
    }
    backbone_.layer(layer, residual(slot), hidden(slot), state, slot.valid(), nullptr, nullptr, context);
  }

  Workers workers_;
  Backbone<T> backbone_;
  ReadoutStage<T> readout_;
  std::int64_t chunk_tokens_;
  std::int64_t lanes_ = 0;
  Array<float, 3> state_;  // [layers, B, state_floats]
  std::vector<Slot> slots_;
};

}  // namespace

std::unique_ptr<Inference::Engine> make_chunk_major_inference(const Model& model,
                                                              const ExecutionOptions& execution,
                                                              const InferenceOptions& options) {
  if (execution.precision == Precision::bf16) {
    return std::make_unique<ChunkMajorInference<bfloat16>>(model, execution, options);
  }
  return std::make_unique<ChunkMajorInference<float>>(model, execution, options);
}

}  // namespace longstrand
