// Exact chunked backpropagation. A sequence runs forward chunk by chunk, keeping only the recurrent state at
// chunk boundaries; then its chunks are taken last to first, each run again from its boundary state, this
// time keeping activations, and walked back, the gradient of the state going from each chunk to the one
// before it.
//
// Boundary states of very long sequences would grow with their length. So at most kFanout are kept a level: a
// longer range is split into at most kFanout equal parts, the state is kept where each part begins, and the
// parts are taken last to first in the same way. Every level costs one more forward pass and no more memory.
#include <algorithm>
#include <array>
#include <optional>

#include "kernels/wavefront.hpp"
#include "src/training_head.hpp"

namespace longstrand {
namespace {

constexpr std::int64_t kFanout = 128;
/// Long enough for the products to run at full speed, short enough for a layer's activations to stay in
/// cache.
constexpr std::int64_t kChunk_tokens = 512;
/// A sequence whose activations take no more runs as one chunk, which spares the pass for boundary states: a
/// quarter faster. The same for any number of threads, on which no result may depend.
constexpr std::int64_t kWholeSequence_bytes = std::int64_t{64} << 20;

constexpr std::int64_t kZeroState = -1;  // instead of the index of a kept state
constexpr std::int64_t kCarriedState = -2;
constexpr std::int64_t kKeepNone = -1;

/// One chunk's pass through the layers.
struct Item {
  std::int64_t sequence;           // index within the batch
  std::int64_t chunk;              // index within the sequence
  std::int64_t from = kZeroState;  // the state to start from: a kept one, or one of the above
  std::int64_t keep = kKeepNone;   // where to keep the state after the chunk
};

template <class T>
class ChunkMajorTrainer final : public Trainer::Engine {
 public:
  ChunkMajorTrainer(const Model& model, const ExecutionOptions& execution, const TrainerOptions& options)
      : workers_(execution.threads, execution.device),
        backbone_(model, /*for_backward=*/!options.freeze_backbone, workers_.main_context()),
        head_(make_training_head<T>(model, backbone_, options)),
        frozen_(options.freeze_backbone),
        slots_(static_cast<std::size_t>(execution.threads) + 1),
        chunk_tokens_(execution.chunk_tokens > 0 ? execution.chunk_tokens : kChunk_tokens),
        whole_tokens_(execution.chunk_tokens > 0 ? 0
                                                 : kWholeSequence_bytes / backbone_.saved_bytes_per_token()),
        state_({backbone_.layers(), backbone_.state_floats()}),
        d_state_({backbone_.layers(), backbone_.state_floats()}) {}

  BatchTotals accumulate(std::span<const TrainingSequence> batch, ParameterStore& gradients) override {
    batch_ = batch;
    gradients_ = &gradients;
    head_->start_batch(batch.size(), &gradients);
    if (frozen_) {
      run_whole_batch_forward();
    } else {
      for (std::size_t begin = 0; begin < batch.size();) begin = backpropagate_group(begin);
    }
    head_->finish_batch();
    return head_->totals();
  }

  BatchTotals evaluate(std::span<const TrainingSequence> batch) override {
    batch_ = batch;
    head_->start_batch(batch.size(), nullptr);
    run_whole_batch_forward();
    return head_->totals();
  }

  void weights_changed() override {
    if (!frozen_) backbone_.prepare(workers_.main_context());
  }
  Context& context() override { return workers_.main_context(); }

  std::size_t peak_bytes() const override {
    std::size_t total_bytes = workers_.scratch_bytes();
    for (const Slot& slot : slots_) total_bytes += slot.arena.high_water_bytes();
    return total_bytes + kept_states_.size() * state_bytes();
  }

 private:
  /// A chunk under way: its tokens, the streams between layers, and what backward needs of each layer.
  struct Slot {
    Arena arena;
    std::optional<Arena::Scope> scope;
    std::vector<std::uint8_t> tokens;
    std::array<std::int64_t, 1> valid{};
    TrainingChunk chunk;
    View<float, 3> residual, d_residual;  // [1, T, D]
    View<T, 3> hidden;                    // [1, T, D]
    std::vector<typename Backbone<T>::Saved> saved;
  };

  std::size_t state_bytes() const { return static_cast<std::size_t>(state_.view().size()) * sizeof(float); }

  std::int64_t chunk_tokens_of(std::int64_t sequence) const {
    const std::int64_t length = batch_[sequence].length;
    const std::int64_t whole = std::max<std::int64_t>(length, 1);
    return length <= whole_tokens_ ? whole : std::min(chunk_tokens_, whole);
  }

  std::int64_t chunks_of(std::int64_t sequence) const {
    const std::int64_t chunk = chunk_tokens_of(sequence);
    return (batch_[sequence].length + chunk - 1) / chunk;
  }

  // -- schedules
  // ----------------------------------------------------------------------------------------------------

  void run_whole_batch_forward() {
    std::vector<std::int64_t> first_item = {0};  // of each sequence
    for (std::int64_t s = 0; s < std::ssize(batch_); ++s)
      first_item.push_back(first_item.back() + chunks_of(s));
    forward(first_item.back(), /*with_head=*/true, [&](std::int64_t i) {
      const std::int64_t s =
          std::upper_bound(first_item.begin(), first_item.end(), i) - first_item.begin() - 1;
      const std::int64_t chunk = i - first_item[s];
      return Item{.sequence = s, .chunk = chunk, .from = chunk == 0 ? kZeroState : kCarriedState};
    });
  }

  /// Takes as many sequences from `begin` on as fit one level of kept states, or one longer sequence. Returns
  /// the index behind them.
  std::size_t backpropagate_group(std::size_t begin) {
    std::size_t end = begin;
    std::int64_t chunks = 0;
    while (end < batch_.size() && (end == begin || chunks + chunks_of(end) <= kFanout))
      chunks += chunks_of(end++);
    if (chunks > kFanout) {
      backpropagate_range({.sequence = static_cast<std::int64_t>(begin), .begin = 0, .end = chunks},
                          kZeroState,
                          /*unused=*/0, head_->needs_whole_sequence());
      return end;
    }
    std::vector<Item> ahead, back;
    for (std::size_t s = begin; s < end; ++s) {
      const std::int64_t unused = std::ssize(ahead);
      plan_leaf({.sequence = static_cast<std::int64_t>(s), .begin = 0, .end = chunks_of(s)}, kZeroState,
                unused, head_->needs_whole_sequence(), ahead, back);
    }
    forward_planned(ahead, head_->needs_whole_sequence());
    backward_planned(back);
    return end;
  }

  /// Chunks [begin, end) of one sequence.
  struct Range {
    std::int64_t sequence, begin, end;
    std::int64_t chunks() const { return end - begin; }
  };

  /// A range whose first chunk starts from the state `from`; kept states from index `unused` on are free.
  /// With `with_head`, the head has yet to see the range forward. The gradient of the state after it is in
  /// d_state_.
  void backpropagate_range(const Range& range, std::int64_t from, std::int64_t unused, bool with_head) {
    if (range.chunks() <= kFanout) {
      std::vector<Item> ahead, back;
      plan_leaf(range, from, unused, with_head, ahead, back);
      forward_planned(ahead, with_head);
      backward_planned(back);
      return;
    }
    std::int64_t part = 1;
    while ((range.chunks() + part - 1) / part > kFanout) part *= kFanout;
    const std::int64_t last_part = (range.chunks() - 1) / part;
    forward(with_head ? range.chunks() : last_part * part, with_head, [&](std::int64_t i) {
      const bool part_follows = (i + 1) % part == 0 && (i + 1) / part <= last_part;
      return Item{.sequence = range.sequence,
                  .chunk = range.begin + i,
                  .from = i == 0 ? from : kCarriedState,
                  .keep = part_follows ? unused + (i + 1) / part - 1 : kKeepNone};
    });
    for (std::int64_t p = last_part; p >= 0; --p) {
      const std::int64_t begin = range.begin + p * part;
      backpropagate_range({range.sequence, begin, std::min(begin + part, range.end)},
                          p == 0 ? from : unused + p - 1, unused + last_part, /*with_head=*/false);
    }
  }

  /// A range whose states are all kept: chunk begin + i starts from the state unused + i - 1. The last chunk
  /// need not run ahead, unless the head has to see it; of a single chunk, the head sees enough on the way
  /// back.
  void plan_leaf(const Range& range, std::int64_t from, std::int64_t unused, bool with_head,
                 std::vector<Item>& ahead, std::vector<Item>& back) const {
    const std::int64_t chunks = range.chunks();
    const std::int64_t chunks_ahead = with_head && chunks > 1 ? chunks : chunks - 1;
    for (std::int64_t i = 0; i < chunks_ahead; ++i) {
      ahead.push_back({.sequence = range.sequence,
                       .chunk = range.begin + i,
                       .from = i == 0 ? from : kCarriedState,
                       .keep = i + 1 < chunks ? unused + i : kKeepNone});
    }
    for (std::int64_t i = chunks - 1; i >= 0; --i) {
      back.push_back(
          {.sequence = range.sequence, .chunk = range.begin + i, .from = i == 0 ? from : unused + i - 1});
    }
  }

  void forward_planned(const std::vector<Item>& items, bool with_head) {
    forward(std::ssize(items), with_head, [&](std::int64_t i) { return items[i]; });
  }

  // -- sweeps
  // -------------------------------------------------------------------------------------------------------

  template <class ItemAt>
  void forward(std::int64_t count, bool with_head, ItemAt item_at) {
    reserve_states(count, item_at);
    const int layers = backbone_.layers();
    workers_.run({.items = count,
                  .stages = layers + 1 + (with_head ? 1 : 0),
                  .in_flight = static_cast<int>(slots_.size()),
                  .step = [&](std::int64_t i, int stage, Context& context) {
                    Slot& slot = slots_[static_cast<std::size_t>(i) % slots_.size()];
                    const Item item = item_at(i);
                    if (stage == 0) {
                      start(slot, item, context);
                    } else if (stage <= layers) {
                      layer_forward(slot, item, stage - 1, context);
                    } else {
                      head_->forward(slot.chunk, slot.residual, slot.hidden, context);
                    }
                    return true;
                  }});
  }

  void backward_planned(const std::vector<Item>& items) {
    const int layers = backbone_.layers();
    const int head_stage = layers + 1;
    const int last_stage = 2 * layers + 2;
    workers_.run({.items = std::ssize(items),
                  .stages = last_stage + 1,
                  .in_flight = static_cast<int>(slots_.size()),
                  .step = [&](std::int64_t i, int stage, Context& context) {
                    Slot& slot = slots_[static_cast<std::size_t>(i) % slots_.size()];
                    const Item& item = items[i];
                    if (stage == 0) {
                      start(slot, item, context);
                    } else if (stage < head_stage) {
                      layer_recomputed(slot, item, stage - 1, context);
                    } else if (stage == head_stage) {
                      head_->backward(slot.chunk, slot.residual, slot.hidden, slot.d_residual, context);
                    } else if (stage < last_stage) {
                      layer_backward(slot, last_stage - 1 - stage, context);
                    } else {
                      backbone_.embed_backward(slot.chunk.tokens, slot.d_residual, *gradients_, context);
                    }
                    return true;
                  }});
  }

  template <class ItemAt>
  void reserve_states(std::int64_t count, ItemAt item_at) {
    std::int64_t needed = 0;
    for (std::int64_t i = 0; i < count; ++i) needed = std::max(needed, item_at(i).keep + 1);
    while (std::ssize(kept_states_) < needed) kept_states_.emplace_back(state_.view().shape);
  }

  // -- stages
  // -------------------------------------------------------------------------------------------------------

  void start(Slot& slot, const Item& item, Context& context) {
    const TrainingSequence& sequence = batch_[item.sequence];
    const std::int64_t chunk = chunk_tokens_of(item.sequence);
    const std::int64_t begin = item.chunk * chunk;
    const std::int64_t length = std::min(chunk, sequence.length - begin);
    const bool last = begin + length == sequence.length;
    slot.tokens.resize(static_cast<std::size_t>(length + (last ? 0 : 1)));
    sequence.read(begin, slot.tokens);
    slot.valid = {length};
    slot.chunk = {.sequence = &sequence,
                  .sequence_index = item.sequence,
                  .first = item.chunk == 0,
                  .last = last,
                  .tokens = {slot.tokens.data(), {1, length}},
                  .valid = {slot.valid.data(), {1}},
                  .next_token = last ? -1 : slot.tokens.back()};
    slot.scope.reset();
    slot.scope.emplace(slot.arena);
    slot.saved.resize(static_cast<std::size_t>(backbone_.layers()));
    slot.residual = slot.arena.template take<float, 3>({1, length, backbone_.d_model()});
    slot.d_residual = slot.arena.template take<float, 3>({1, length, backbone_.d_model()});
    slot.hidden = slot.arena.template take<T, 3>({1, length, backbone_.d_model()});
    backbone_.embed(slot.chunk.tokens, slot.residual, context);
  }

  View<float, 2> state_of(const Array<float, 2>& states, int layer) const {
    return states.view().slice(layer, 1);
  }

  void load_state(const Item& item, int layer, View<float, 2> state) const {
    if (item.from == kZeroState) std::fill_n(state.data, state.size(), 0.0F);
    if (item.from >= 0) std::copy_n(state_of(kept_states_[item.from], layer).data, state.size(), state.data);
  }

  void layer_forward(Slot& slot, const Item& item, int layer, Context& context) {
    const View<float, 2> state = state_of(state_, layer);
    load_state(item, layer, state);
    backbone_.layer(layer, slot.residual, slot.hidden, state, slot.chunk.valid, nullptr, nullptr, context);
    if (item.keep == kKeepNone) return;
    std::copy_n(state.data, state.size(), state_of(kept_states_[item.keep], layer).data);
  }

  void layer_recomputed(Slot& slot, const Item& item, int layer, Context& context) {
    const Arena::Scope scope(context.scratch);
    const auto state = context.scratch.take<float, 2>({1, backbone_.state_floats()});
    load_state(item, layer, state);
    backbone_.layer(layer, slot.residual, slot.hidden, state, slot.chunk.valid, &slot.arena,
                    &slot.saved[layer], context);
  }

  void layer_backward(Slot& slot, int layer, Context& context) {
    const View<float, 2> d_state = state_of(d_state_, layer);
    if (slot.chunk.last) std::fill_n(d_state.data, d_state.size(), 0.0F);
    backbone_.layer_backward(layer, slot.saved[layer], slot.d_residual, slot.hidden, d_state,
                             slot.chunk.valid, *gradients_, context);
  }

  Workers workers_;
  Backbone<T> backbone_;
  std::unique_ptr<TrainingHead<T>> head_;
  bool frozen_;
  std::vector<Slot> slots_;
  std::int64_t chunk_tokens_;
  std::int64_t whole_tokens_;                 // sequences of up to so many run as one chunk
  Array<float, 2> state_;                     // [layers, state_floats]
  Array<float, 2> d_state_;                   // [layers, state_floats]
  std::vector<Array<float, 2>> kept_states_;  // each as state_
  std::span<const TrainingSequence> batch_;
  ParameterStore* gradients_ = nullptr;
};

}  // namespace

std::unique_ptr<Trainer::Engine> make_chunk_major_trainer(const Model& model,
                                                          const ExecutionOptions& execution,
                                                          const TrainerOptions& options) {
  if (execution.precision == Precision::bf16) {
    return std::make_unique<ChunkMajorTrainer<bfloat16>>(model, execution, options);
  }
  return std::make_unique<ChunkMajorTrainer<float>>(model, execution, options);
}

}  // namespace longstrand
