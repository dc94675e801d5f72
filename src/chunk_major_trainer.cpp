// Exact chunked backpropagation. A sequence runs forward chunk by chunk, keeping only the recurrent state at
// chunk boundaries; then its chunks are taken last to first, each run again from its boundary state, this
// time keeping activations, and walked back, the gradient of the state going from each chunk to the one
// before it.
//
// Where the outputs of all layers have room for all chunks, these go through the layers together instead, one
// layer after the other. Then no chunk goes ahead, only one layer's activations are kept at a time, of long
// chunks, and the way back begins where the way forward ended.
//
// Boundary states of very long sequences would grow with their length. So only so many are kept a level: a
// longer range is split into at most that many equal parts, the state is kept where each part begins, and the
// parts are taken last to first in the same way. Every level costs one more forward pass and no more memory.
#include <algorithm>
#include <deque>
#include <optional>

#include "kernels/transfer.hpp"
#include "kernels/wavefront.hpp"
#include "src/training_head.hpp"
#include "src/training_limits.hpp"
#include "src/vocabulary.hpp"

namespace longstrand {
namespace {

constexpr std::int64_t kZeroState = -1;  // instead of the index of a kept state
constexpr std::int64_t kCarriedState = -2;
constexpr std::int64_t kKeepNone = -1;
constexpr std::int64_t kNoTrail = -1;

/// One chunk's pass through the layers.
struct Item {
  std::int64_t bundle;             // index within the batch
  std::int64_t chunk;              // index within the bundle
  std::int64_t from = kZeroState;  // the state to start from: a kept one, or one of the above
  std::int64_t keep = kKeepNone;   // where to keep the state after the chunk
  std::int64_t trail = kNoTrail;   // index of the chunk's trails
};

template <class T>
class ChunkMajorTrainer final : public Trainer::Engine {
 public:
  ChunkMajorTrainer(Model& model, const ExecutionOptions& execution, const TrainerOptions& options)
      : workers_(execution.threads, execution.device),
        weights_on_gpu_(copy_to_gpu(model.parameters(), workers_.main_context())),
        weights_(weights_on_gpu_ ? *weights_on_gpu_ : model.parameters()),
        backbone_(model.config(), weights_, /*for_backward=*/!options.freeze_backbone,
                  workers_.main_context()),
        head_(make_training_head<T>(model, weights_, backbone_, options, workers_.main_context())),
        frozen_(options.freeze_backbone),
        limits_(training_limits(execution, bytes())) {
    // One more than threads, so that none waits for the last chunk to leave.
    const int slots = execution.device.kind == DeviceKind::cuda ? 1 : execution.threads + 1;
    for (int i = 0; i < slots; ++i) slots_.emplace_back(execution.device);
  }

  ParameterStore& weights() override { return weights_; }

  BatchTotals accumulate(std::span<const TrainingSequence> batch, ParameterStore& gradients,
                         const Poll&) override {
    gradients_ = &gradients;
    start_batch(batch, &gradients);
    if (frozen_) {
      run_whole_batch_forward();
    } else {
      for (std::size_t begin = 0; begin < bundles_.size();) {
        if (bundles_[begin].by_layers) {
          backpropagate_by_layers(static_cast<std::int64_t>(begin++));
        } else {
          begin = backpropagate_group(begin);
        }
      }
    }
    head_->finish_batch(context());
    return head_->totals(context());
  }

  BatchTotals evaluate(std::span<const TrainingSequence> batch, const Poll&) override {
    start_batch(batch, nullptr);
    run_whole_batch_forward();
    return head_->totals(context());
  }

  void weights_changed() override {
    if (!frozen_) backbone_.prepare(context());
    head_->weights_changed(weights_, context());
  }
  Context& context() override { return workers_.main_context(); }

  std::size_t peak_bytes() const override {
    std::size_t total_bytes = workers_.scratch_bytes() + head_->size_bytes();
    for (const auto* slots : {&slots_, &sheet_}) {
      for (const Slot& slot : *slots) total_bytes += slot.arena.high_water_bytes();
    }
    for (const auto* states : {&state_, &d_state_}) total_bytes += states->size_bytes();
    for (const auto& states : kept_states_) total_bytes += states.size_bytes();
    for (const auto& trails : trails_) total_bytes += trails.size_bytes();
    return total_bytes;
  }

 private:
  /// A chunk under way: its tokens, the streams between layers, and what backward needs of each layer.
  struct Slot {
    explicit Slot(Device device) : arena(device) {}

    Arena arena;
    std::optional<Arena::Scope> scope;
    std::vector<std::uint8_t> tokens, ends;  // as TrainingChunk's, on the host
    std::vector<std::int64_t> valid;
    std::vector<std::int32_t> next;
    TrainingChunk chunk;
    View<float, 3> residual, d_residual;  // [B, T, D]
    View<T, 3> normed;                    // [B, T, D]  ahead
    View<T, 3> hidden;                    // [B, T, D]  on the way back
    std::vector<typename Backbone<T>::Saved> saved;
    std::vector<View<T, 3>> outputs;  // [B, T, D] of each layer, by layers; the last becomes d_hidden
  };

  TrainingBytes bytes() const {
    constexpr std::int64_t kStreams_bytes =
        2 * sizeof(float);  // an element of the residual, and its gradient
    const std::int64_t layers = backbone_.layers(), saved = backbone_.saved_bytes_per_token();
    return {.saved = saved,
            .of_layer = saved / layers,
            .by_layers = backbone_.d_model() * (layers * std::int64_t{sizeof(T)} + kStreams_bytes),
            .state = layers * backbone_.state_floats() * std::int64_t{sizeof(float)}};
  }

  void start_batch(std::span<const TrainingSequence> batch, ParameterStore* gradients) {
    bundles_ = bundle_up(batch, limits_.bundles);
    std::int64_t lanes = 0, most_lanes = 1;
    for (const Bundle& bundle : bundles_) {
      lanes += bundle.lanes();
      most_lanes = std::max(most_lanes, bundle.lanes());
    }
    head_->start_batch(lanes, gradients, context());
    if (state_.view().shape[1] >= most_lanes) return;
    state_ = States({backbone_.layers(), most_lanes, backbone_.state_floats()}, context().device);
    d_state_ = States(state_.view().shape, context().device);
  }

  // -- schedules
  // ----------------------------------------------------------------------------------------------------

  void run_whole_batch_forward() {
    std::vector<std::int64_t> first_item = {0};  // of each bundle
    for (const Bundle& bundle : bundles_) first_item.push_back(first_item.back() + bundle.chunks());
    forward(first_item.back(), /*with_head=*/true, [&](std::int64_t i) {
      const std::int64_t bundle =
          std::upper_bound(first_item.begin(), first_item.end(), i) - first_item.begin() - 1;
      const std::int64_t chunk = i - first_item[bundle];
      return Item{.bundle = bundle, .chunk = chunk, .from = chunk == 0 ? kZeroState : kCarriedState};
    });
  }

  /// Takes as many bundles from `begin` on as fit one level of kept states, or one longer bundle. Returns the
  /// index behind them.
  std::size_t backpropagate_group(std::size_t begin) {
    std::size_t end = begin;
    std::int64_t chunks = 0;
    while (end < bundles_.size() && !bundles_[end].by_layers &&
           (end == begin || chunks + bundles_[end].chunks() <= limits_.kept_states)) {
      chunks += bundles_[end++].chunks();
    }
    if (chunks > limits_.kept_states) {
      backpropagate_range({.bundle = static_cast<std::int64_t>(begin), .begin = 0, .end = chunks}, kZeroState,
                          /*unused=*/0, head_->needs_whole_sequence());
      return end;
    }
    std::vector<Item> ahead, back;
    for (std::size_t i = begin; i < end; ++i) {
      const std::int64_t unused = std::ssize(ahead);
      plan_leaf({.bundle = static_cast<std::int64_t>(i), .begin = 0, .end = bundles_[i].chunks()}, kZeroState,
                unused, head_->needs_whole_sequence(), ahead, back);
    }
    forward_planned(ahead, head_->needs_whole_sequence());
    backward_planned(back);
    return end;
  }

  /// A layer's input is, on the way back, the residual behind it less what it put out itself.
  void backpropagate_by_layers(std::int64_t bundle) {
    Context& context = this->context();
    const std::int64_t chunks = bundles_[bundle].chunks();
    const std::int64_t most_trails = this->most_trails(bundles_[bundle].chunk_tokens);
    const auto item_at = [&](std::int64_t i) {
      return Item{.bundle = bundle,
                  .chunk = i,
                  .from = i == 0 ? kZeroState : i - 1,
                  .keep = i + 1 < chunks ? i : kKeepNone,
                  .trail = i < most_trails ? i : kNoTrail};
    };
    reserve_states(chunks, item_at);
    while (std::ssize(sheet_) < chunks) sheet_.emplace_back(context.device);
    const auto first_to_last = [&](const auto& step) {
      for (std::int64_t i = 0; i < chunks; ++i) step(sheet_[static_cast<std::size_t>(i)], item_at(i));
    };
    const auto last_to_first = [&](const auto& step) {
      for (std::int64_t i = chunks - 1; i >= 0; --i) step(sheet_[static_cast<std::size_t>(i)], item_at(i));
    };
    first_to_last([&](Slot& slot, const Item& item) {
      start(slot, item, context);
      slot.d_residual = take_rows<float>(slot);
      slot.outputs.clear();
      for (int i = 0; i < backbone_.layers(); ++i) slot.outputs.push_back(take_rows<T>(slot));
      backbone_.embed(slot.chunk.tokens, slot.residual, context);
    });
    for (int i = 0; i < backbone_.layers(); ++i) {
      first_to_last([&](Slot& slot, const Item& item) { layer_output(slot, item, i, context); });
    }
    if (head_->needs_whole_sequence() && chunks > 1) {
      first_to_last([&](Slot& slot, const Item&) {
        const Arena::Scope scope(context.scratch);
        const auto finished = backbone_.finish(slot.residual, slot.outputs.back(), context);
        head_->forward(slot.chunk, finished.out, context);
      });
    }
    last_to_first([&](Slot& slot, const Item&) {
      head_->backward(slot.chunk, slot.residual, slot.outputs.back(), slot.d_residual, context);
    });
    for (int i = backbone_.layers() - 1; i >= 0; --i) {
      last_to_first([&](Slot& slot, const Item& item) { layer_and_back(slot, item, i, context); });
    }
    last_to_first([&](Slot& slot, const Item&) {
      backbone_.embed_backward(slot.chunk.tokens, slot.d_residual, *gradients_, context);
    });
  }

  /// Chunks [begin, end) of one bundle.
  struct Range {
    std::int64_t bundle, begin, end;
    std::int64_t chunks() const { return end - begin; }
  };

  /// A range whose first chunk starts from the state `from`; kept states from index `unused` on are free.
  /// With `with_head`, the head has yet to see the range forward. The gradient of the state after it is in
  /// d_state_.
  void backpropagate_range(const Range& range, std::int64_t from, std::int64_t unused, bool with_head) {
    if (range.chunks() <= limits_.kept_states) {
      std::vector<Item> ahead, back;
      plan_leaf(range, from, unused, with_head, ahead, back);
      forward_planned(ahead, with_head);
      backward_planned(back);
      return;
    }
    std::int64_t part = 1;
    while ((range.chunks() + part - 1) / part > limits_.kept_states) part *= limits_.kept_states;
    const std::int64_t last_part = (range.chunks() - 1) / part;
    forward(with_head ? range.chunks() : last_part * part, with_head, [&](std::int64_t i) {
      const bool part_follows = (i + 1) % part == 0 && (i + 1) / part <= last_part;
      return Item{.bundle = range.bundle,
                  .chunk = range.begin + i,
                  .from = i == 0 ? from : kCarriedState,
                  .keep = part_follows ? unused + (i + 1) / part - 1 : kKeepNone};
    });
    for (std::int64_t p = last_part; p >= 0; --p) {
      const std::int64_t begin = range.begin + p * part;
      backpropagate_range({range.bundle, begin, std::min(begin + part, range.end)},
                          p == 0 ? from : unused + p - 1, unused + last_part, /*with_head=*/false);
    }
  }

  /// A range whose states are all kept: chunk begin + i starts from the state unused + i - 1. The last chunk
  /// need not run ahead, unless the head has to see it; of a single chunk, the head sees enough on the way
  /// back. Where a chunk goes ahead, it leaves trails for its way back, as long as there is room.
  void plan_leaf(const Range& range, std::int64_t from, std::int64_t unused, bool with_head,
                 std::vector<Item>& ahead, std::vector<Item>& back) {
    const std::int64_t chunks = range.chunks();
    const std::int64_t chunks_ahead = with_head && chunks > 1 ? chunks : chunks - 1;
    const std::int64_t most_trails = this->most_trails(bundles_[range.bundle].chunk_tokens);
    const auto trail = [&](std::int64_t i) {
      return i < chunks_ahead && unused + i < most_trails ? unused + i : kNoTrail;
    };
    for (std::int64_t i = 0; i < chunks_ahead; ++i) {
      ahead.push_back({.bundle = range.bundle,
                       .chunk = range.begin + i,
                       .from = i == 0 ? from : kCarriedState,
                       .keep = i + 1 < chunks ? unused + i : kKeepNone,
                       .trail = trail(i)});
    }
    for (std::int64_t i = chunks - 1; i >= 0; --i) {
      back.push_back({.bundle = range.bundle,
                      .chunk = range.begin + i,
                      .from = i == 0 ? from : unused + i - 1,
                      .trail = trail(i)});
    }
  }

  std::int64_t most_trails(std::int64_t chunk_tokens) {
    const std::int64_t floats = trail_floats(chunk_tokens);
    return floats == 0 ? 0
                       : limits_.trails_bytes / (backbone_.layers() * floats * std::int64_t{sizeof(float)});
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
                      slot.normed = take_rows<T>(slot);
                      backbone_.embed(slot.chunk.tokens, slot.residual, slot.normed, context);
                    } else if (stage <= layers) {
                      layer_forward(slot, item, stage - 1, context);
                    } else {
                      head_->forward(slot.chunk, slot.normed, context);
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
                      slot.saved.resize(static_cast<std::size_t>(layers));
                      slot.d_residual = take_rows<float>(slot);
                      slot.hidden = take_rows<T>(slot);
                      backbone_.embed(slot.chunk.tokens, slot.residual, context);
                    } else if (stage < head_stage) {
                      layer_recomputed(slot, item, stage - 1, context);
                    } else if (stage == head_stage) {
                      head_->backward(slot.chunk, slot.residual, slot.hidden, slot.d_residual, context);
                    } else if (stage < last_stage) {
                      const int layer = last_stage - 1 - stage;
                      layer_backward(slot, slot.saved[layer], slot.hidden, layer, context);
                    } else {
                      backbone_.embed_backward(slot.chunk.tokens, slot.d_residual, *gradients_, context);
                    }
                    return true;
                  }});
  }

  /// Bundles of more than one chunk have one lane, and no others keep states.
  template <class ItemAt>
  void reserve_states(std::int64_t count, ItemAt item_at) {
    std::int64_t needed = 0, trails = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      needed = std::max(needed, item_at(i).keep + 1);
      trails = std::max(trails, item_at(i).trail + 1);
    }
    if (std::ssize(trails_) < trails) trails_.resize(static_cast<std::size_t>(trails));
    while (std::ssize(kept_states_) < needed) {
      kept_states_.emplace_back(
          std::array{std::int64_t{backbone_.layers()}, std::int64_t{1}, backbone_.state_floats()},
          context().device);
    }
  }

  // -- stages
  // -------------------------------------------------------------------------------------------------------

  void start(Slot& slot, const Item& item, Context& context) {
    slot.scope.reset();
    slot.scope.emplace(slot.arena);
    read_chunk(slot, item, context);
    slot.residual = take_rows<float>(slot);
  }

  /// [B, T, D] of the slot's chunk.
  template <class E>
  View<E, 3> take_rows(Slot& slot) const {
    const auto [lanes, length] = slot.chunk.tokens.shape;
    return slot.arena.template take<E, 3>({lanes, length, backbone_.d_model()});
  }

  void read_chunk(Slot& slot, const Item& item, Context& context) const {
    const Bundle& bundle = bundles_[item.bundle];
    const std::int64_t begin = item.chunk * bundle.chunk_tokens;
    const std::int64_t length = std::min(bundle.chunk_tokens, bundle.longest - begin);
    const auto lanes = static_cast<std::size_t>(bundle.lanes());
    slot.valid.resize(lanes);
    slot.next.resize(lanes);
    slot.ends.resize(lanes);
    slot.tokens.resize(lanes * static_cast<std::size_t>(length) + 1);  // and the token after the last lane's
    for (std::size_t b = 0; b < lanes; ++b) {
      const TrainingSequence& sequence = *bundle.sequences[b];
      const std::int64_t left = std::max<std::int64_t>(sequence.length - begin, 0);
      const std::int64_t count = std::min(left, length);
      std::uint8_t* lane = slot.tokens.data() + static_cast<std::int64_t>(b) * length;
      // The token after the lane's lies where the next lane begins, which is written later.
      if (count > 0) sequence.read(begin, {lane, static_cast<std::size_t>(std::min(left, length + 1))});
      std::fill(lane + count, lane + length, kPaddingToken);
      slot.valid[b] = count;
      slot.next[b] = left > length ? lane[length] : -1;
      slot.ends[b] = count > 0 && left == count;
    }
    const View<const std::uint8_t, 2> tokens(slot.tokens.data(), {bundle.lanes(), length});
    slot.chunk = {.bundle = &bundle,
                  .index = item.chunk,
                  .first = item.chunk == 0,
                  .last = begin + length == bundle.longest,
                  .tokens = upload(tokens, slot.arena, context),
                  .valid = upload(slot.valid, slot.arena, context),
                  .next = upload(slot.next, slot.arena, context),
                  .ends = upload(slot.ends, slot.arena, context),
                  .targets = {},
                  .length = {}};
  }

  using States = Array<float, 3>;  // [layers, B, state_floats]

  View<float, 2> state_of(const States& states, int layer, const Slot& slot) const {
    return states.view().index(layer).slice(0, slot.chunk.bundle->lanes());
  }

  void load_state(const Slot& slot, const Item& item, int layer, View<float, 2> state,
                  Context& context) const {
    if (item.from == kZeroState) fill(state, 0.0F, context);
    if (item.from >= 0) copy(state_of(kept_states_[item.from], layer, slot), state, context);
  }
  void keep_state(const Slot& slot, const Item& item, int layer, View<float, 2> state,
                  Context& context) const {
    if (item.keep != kKeepNone) copy(state, state_of(kept_states_[item.keep], layer, slot), context);
  }

  std::int64_t trail_floats(std::int64_t chunk_tokens) {
    return backbone_.mixer(0).trail_floats(/*lanes=*/1, chunk_tokens, workers_.main_context());
  }

  /// The layer's, left by a walk over the item's chunk.
  Trail trail_of(const Slot& slot, const Item& item, int layer, bool walked) {
    if (item.trail == kNoTrail) return {};
    const std::int64_t floats = trail_floats(slot.chunk.tokens.shape[1]);
    Array<float, 2>& trails = trails_[static_cast<std::size_t>(item.trail)];
    if (trails.view().shape[1] < floats) {
      trails = Array<float, 2>({backbone_.layers(), floats}, context().device);
    }
    return {.floats = {trails.view().at(layer), {floats}, context().device}, .walked = walked};
  }

  void layer_forward(Slot& slot, const Item& item, int layer, Context& context) {
    const View<float, 2> state = state_of(state_, layer, slot);
    load_state(slot, item, layer, state, context);
    if (context.device.kind == DeviceKind::cpu && slot.chunk.bundle->lanes() == 1) {
      layer_forward_in_pieces(slot, layer, state, context);
    } else {
      backbone_.layer(layer, slot.residual, slot.normed, state, slot.chunk.valid,
                      trail_of(slot, item, layer, /*walked=*/false), context);
    }
    keep_state(slot, item, layer, state, context);
  }

  /// Of one lane on a CPU: what a layer makes on the way is not kept, and of fewer tokens it stays in cache.
  void layer_forward_in_pieces(Slot& slot, int layer, View<float, 2> state, Context& context) {
    const std::int64_t length = slot.chunk.tokens.shape[1];
    for (std::int64_t begin = 0; begin < length; begin += kCpuChunk_tokens) {
      const std::int64_t count = std::min(kCpuChunk_tokens, length - begin);
      const std::int64_t valid = std::clamp<std::int64_t>(slot.valid.front() - begin, 0, count);
      const auto piece = [&]<class Element>(const View<Element, 3>& x) {
        return View<Element, 3>(x.at(0, begin), {1, count, x.shape[2]}, x.device);
      };
      backbone_.layer(layer, piece(slot.residual), piece(slot.normed), state,
                      View<const std::int64_t, 1>(&valid, {1}), {}, context);
    }
  }

  void layer_recomputed(Slot& slot, const Item& item, int layer, Context& context) {
    typename Backbone<T>::Saved& saved = slot.saved[layer];
    const View<const T, 3> below = layer == 0 ? View<const T, 3>{} : slot.hidden;
    const View<float, 3> residual = layer == 0 ? slot.residual : take_rows<float>(slot);
    saved.normed = take_rows<T>(slot);
    backbone_.norm(layer, slot.residual, below, residual, saved.normed, context);
    saved.residual = slot.residual = residual;
    layer_kept(slot, item, layer, saved, slot.hidden, slot.arena, context);
  }
  void layer_kept(Slot& slot, const Item& item, int layer, typename Backbone<T>::Saved& saved,
                  const MixerOutput<T>& output, Arena& keep, Context& context) {
    const Arena::Scope scope(context.scratch);
    const auto state = context.scratch.take<float, 2>({slot.chunk.bundle->lanes(), backbone_.state_floats()});
    load_state(slot, item, layer, state, context);
    backbone_.layer_kept(layer, saved, output, state, slot.chunk.valid, keep,
                         trail_of(slot, item, layer, /*walked=*/true), context);
  }

  void layer_backward(Slot& slot, const typename Backbone<T>::Saved& saved, View<T, 3> d_hidden, int layer,
                      Context& context) {
    const View<float, 2> d_state = state_of(d_state_, layer, slot);
    if (slot.chunk.last) fill(d_state, 0.0F, context);
    backbone_.layer_backward(layer, saved, slot.d_residual, d_hidden, d_state, slot.chunk.valid, *gradients_,
                             context);
  }

  void layer_output(Slot& slot, const Item& item, int layer, Context& context) {
    const View<float, 2> state = state_of(state_, layer, slot);
    load_state(slot, item, layer, state, context);
    const View<const T, 3> below = layer == 0 ? View<const T, 3>{} : slot.outputs[layer - 1];
    backbone_.layer_output(layer, slot.residual, below, slot.outputs[layer], state, slot.chunk.valid,
                           trail_of(slot, item, layer, /*walked=*/false), context);
    keep_state(slot, item, layer, state, context);
  }

  /// The layer once more, to have what it keeps, and back. All but the last one find their output added to
  /// the residual.
  void layer_and_back(Slot& slot, const Item& item, int layer, Context& context) {
    Slot& room = slots_.front();
    room.scope.reset();
    const Arena::Scope scope(room.arena);
    const View<const T, 3> added = layer + 1 == backbone_.layers() ? View<const T, 3>{} : slot.outputs[layer];
    typename Backbone<T>::Saved saved;
    saved.residual = slot.residual;
    saved.normed = room.arena.template take<T, 3>(slot.residual.shape);
    backbone_.norm(layer, slot.residual, added, slot.residual, saved.normed, context, Hidden::subtract);
    layer_kept(slot, item, layer, saved, /*output=*/{}, room.arena, context);
    layer_backward(slot, saved, slot.outputs.back(), layer, context);
  }

  Workers workers_;
  std::optional<ParameterStore> weights_on_gpu_;
  ParameterStore& weights_;
  Backbone<T> backbone_;
  std::unique_ptr<TrainingHead<T>> head_;
  bool frozen_;
  TrainingLimits limits_;
  std::deque<Slot> slots_;
  std::deque<Slot> sheet_;  // of each chunk, by layers
  States state_, d_state_;
  std::vector<States> kept_states_;
  std::vector<Array<float, 2>> trails_;  // [layers, at least trail_floats] each
  std::vector<Bundle> bundles_;          // of the batch
  ParameterStore* gradients_ = nullptr;
};

}  // namespace

std::unique_ptr<Trainer::Engine> make_chunk_major_trainer(Model& model, const ExecutionOptions& execution,
                                                          const TrainerOptions& options) {
  return make_for<ChunkMajorTrainer, Trainer::Engine>(execution.precision, model, execution, options);
}

}  // namespace longstrand
