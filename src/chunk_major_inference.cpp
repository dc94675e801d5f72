// Chunks flow through the layers as a wavefront (kernels/wavefront.hpp): stage 0 takes and embeds a chunk, a
// stage a layer follows, the last one reads out. A ring of slots holds the chunks under way.
//
// On a GPU the host puts a chunk's whole way on the stream, then delivers the chunk before it and takes the
// next one while the GPU computes.
#include <algorithm>
#include <deque>

#include "kernels/elementwise.hpp"
#include "kernels/transfer.hpp"
#include "kernels/wavefront.hpp"
#include "src/backbone.hpp"
#include "src/inference_engine.hpp"
#include "src/readout.hpp"

namespace longstrand {
namespace {

template <class T>
class ChunkMajorInference final : public Inference::Engine {
 public:
  ChunkMajorInference(const Model& model, const ExecutionOptions& execution, const InferenceOptions& options)
      : workers_(execution.threads, execution.device),
        on_gpu_(execution.device.kind == DeviceKind::cuda),
        weights_on_gpu_(copy_sorted_to_gpu(model.config(), model.parameters(), workers_.main_context())),
        weights_(weights_on_gpu_ ? *weights_on_gpu_ : model.parameters()),
        backbone_(model.config(), weights_, /*for_backward=*/false, workers_.main_context()),
        readout_(model, weights_, backbone_, options, workers_.main_context()),
        execution_(execution),
        state_(static_cast<std::size_t>(backbone_.layers())) {
    const int slots = on_gpu_ ? 2 : execution.threads + 1;
    for (int i = 0; i < slots; ++i) slots_.emplace_back(execution.device);
  }

  std::int64_t width() const override { return readout_.width(); }

  std::int64_t preferred_chunk_tokens() const override {
    return chunk_tokens_for(execution_, backbone_.saved_bytes_per_token() / backbone_.layers());
  }
  std::int64_t preferred_lanes() const override { return lanes_for(execution_); }

  void run(const std::function<bool(TokenBatch&)>& next,
           const std::function<void(const ChunkResult&)>& deliver, const Poll&) override {
    if (on_gpu_) {
      run_ahead(next, deliver);
    } else {
      run_wavefront(next, deliver);
    }
  }

  std::size_t peak_bytes() const override {
    std::size_t total_bytes = workers_.scratch_bytes() + readout_.size_bytes();
    for (const auto& state : state_) total_bytes += state.size_bytes();
    for (const Slot& slot : slots_) total_bytes += slot.arena.high_water_bytes();
    if (weights_on_gpu_) total_bytes += weights_on_gpu_->size_bytes();
    return total_bytes;
  }

 private:
  /// A chunk under way. What it needs on the device lies in the arena.
  struct Slot {
    explicit Slot(Device device) : arena(device) {}

    TokenBatch batch;
    Arena arena;
    std::optional<Arena::Scope> scope;
    View<const std::uint8_t, 2> tokens;  // [B, T], T of the longest lane: what is behind it is not computed
    View<const std::int64_t, 1> valid;   // [B]
    View<const std::uint8_t, 1> starts;  // [B], empty where no lane starts
    View<float, 3> residual;             // [B, T, D]
    View<T, 3> normed;                   // [B, T, D]
    ReadoutLanding landing;
  };

  void run_wavefront(const std::function<bool(TokenBatch&)>& next,
                     const std::function<void(const ChunkResult&)>& deliver) {
    const int last_stage = readout_.layers() + 1;
    workers_.run({.items = Workers::kUnbounded,
                  .stages = last_stage + 1,
                  .in_flight = static_cast<int>(slots_.size()),
                  .step = [&](std::int64_t item, int stage, Context& context) {
                    Slot& slot = slots_[static_cast<std::size_t>(item) % slots_.size()];
                    if (stage == 0) return take(slot, next, context);
                    if (stage < last_stage) {
                      start_lanes(slot, stage - 1, stage, context);
                      run_layer(slot, stage - 1, context);
                    } else {
                      read_out(slot, context);
                      readout_.deliver(slot.batch, slot.landing, deliver);
                    }
                    return true;
                  }});
  }

  void run_ahead(const std::function<bool(TokenBatch&)>& next,
                 const std::function<void(const ChunkResult&)>& deliver) {
    Context& context = workers_.main_context();
    Slot* before = nullptr;
    for (std::size_t item = 0;; ++item) {
      Slot& slot = slots_[item % slots_.size()];
      const bool taken = take(slot, next, context);
      if (taken) {
        start_lanes(slot, 0, readout_.layers(), context);
        for (int layer = 0; layer < readout_.layers(); ++layer) run_layer(slot, layer, context);
        read_out(slot, context);
      }
      if (before != nullptr) readout_.deliver(before->batch, before->landing, deliver);
      if (!taken) return;
      before = &slot;
    }
  }

  bool take(Slot& slot, const std::function<bool(TokenBatch&)>& next, Context& context) {
    if (!next(slot.batch)) return false;
    const TokenBatch& batch = slot.batch;
    slot.scope.reset();
    slot.scope.emplace(slot.arena);
    const std::int64_t length = std::max<std::int64_t>(1, *std::ranges::max_element(batch.valid));
    const View<const std::uint8_t, 2> tokens(batch.tokens.data(), {batch.lanes, length}, {batch.length, 1},
                                             Device{});
    slot.tokens = upload(tokens, slot.arena, context);
    slot.valid = upload(batch.valid, slot.arena, context);
    slot.starts = {};
    if (std::ranges::count(batch.starts, 0) < batch.lanes) {
      slot.starts = upload(batch.starts, slot.arena, context);
    }
    slot.residual = slot.arena.template take<float, 3>({batch.lanes, length, backbone_.d_model()});
    slot.normed = slot.arena.template take<T, 3>({batch.lanes, length, backbone_.d_model()});
    backbone_.embed(slot.tokens, slot.residual, slot.normed, context);
    return true;
  }

  /// In layers [begin, end): room for the chunk's lanes, and no state where a record starts.
  void start_lanes(const Slot& slot, int begin, int end, Context& context) {
    std::vector<View<float, 2>> states;
    for (int layer = begin; layer < end; ++layer) {
      reserve_lanes(state_[static_cast<std::size_t>(layer)], slot.batch.lanes, backbone_.state_floats(),
                    context);
      states.push_back(state(slot, layer));
    }
    if (!slot.starts.empty()) fill_marked_rows<float>(states, slot.starts, 0.0F, context);
  }
  View<float, 2> state(const Slot& slot, int layer) const {
    return state_[static_cast<std::size_t>(layer)].view().slice(0, slot.batch.lanes);
  }

  void run_layer(const Slot& slot, int layer, Context& context) {
    backbone_.layer(layer, slot.residual, slot.normed, state(slot, layer), slot.valid, {}, context);
  }

  void read_out(Slot& slot, Context& context) {
    readout_.compute({.batch = slot.batch,
                      .tokens = slot.tokens,
                      .valid = slot.valid,
                      .starts = slot.starts,
                      .residual = slot.residual,
                      .normed = slot.normed},
                     slot.arena, slot.landing, context);
  }

  Workers workers_;
  bool on_gpu_;
  std::optional<ParameterStore> weights_on_gpu_;
  const ParameterStore& weights_;
  Backbone<T> backbone_;
  ReadoutStage<T> readout_;
  ExecutionOptions execution_;
  std::vector<Array<float, 2>> state_;  // [layers][B, state_floats]
  std::deque<Slot> slots_;
};

}  // namespace

std::unique_ptr<Inference::Engine> make_chunk_major_inference(const Model& model,
                                                              const ExecutionOptions& execution,
                                                              const InferenceOptions& options) {
  return make_for<ChunkMajorInference, Inference::Engine>(execution.precision, model, execution, options);
}

}  // namespace longstrand
