// Whole records at a time: chunks are taken until no record is open, their records laid out as a sheet
// (src/record_sheet.hpp), whose chunks are of a size of its own, run through the layers (src/layer_sweep.hpp)
// and read out; then every chunk taken is delivered.
//
// On a GPU the host puts a group's whole way on the stream, then delivers the group before it and takes the
// next one while the GPU computes.
#include <algorithm>
#include <deque>
#include <numeric>
#include <stdexcept>

#include "kernels/transfer.hpp"
#include "src/inference_engine.hpp"
#include "src/layer_sweep.hpp"
#include "src/readout.hpp"
#include "src/strands.hpp"

namespace longstrand {
namespace {

/// Chunks as they are taken, from one moment without an open record to the next.
class RecordGroup {
 public:
  /// False at the end of the stream.
  bool gather(const std::function<bool(TokenBatch&)>& next);
  void lay_out(int strands, std::int64_t most_tokens, bool with_targets, RecordSheet& sheet) const;

  /// A record's part in a lane of a chunk.
  struct Piece {
    std::int64_t record = -1;  // of the group; -1: the lane has none
    std::int64_t begin = 0;    // in the record
  };
  std::size_t chunks() const { return pieces_.size(); }
  const TokenBatch& chunk(std::size_t i) const { return chunks_[i]; }
  Piece piece(std::size_t i, std::int64_t lane) const { return pieces_[i][lane]; }
  std::int64_t records() const { return std::ssize(length_); }
  std::int64_t tokens() const { return std::accumulate(length_.begin(), length_.end(), std::int64_t{0}); }
  std::int64_t targets(std::int64_t record) const { return targets_[record]; }

 private:
  bool add(const TokenBatch& chunk);

  std::deque<TokenBatch> chunks_;               // more than pieces_ has: their buffers are used again
  std::vector<std::vector<Piece>> pieces_;      // of each chunk, [B]
  std::vector<std::int64_t> open_;              // [lanes]  the record that goes on, or -1
  std::vector<std::int64_t> length_, targets_;  // of each record
};

bool RecordGroup::gather(const std::function<bool(TokenBatch&)>& next) {
  pieces_.clear();
  length_.clear();
  targets_.clear();
  open_.clear();
  for (std::size_t i = 0;; ++i) {
    if (i == chunks_.size()) chunks_.emplace_back();
    if (!next(chunks_[i])) return i > 0;
    if (!add(chunks_[i])) return true;
  }
}

/// Whether a record is open behind the chunk.
bool RecordGroup::add(const TokenBatch& chunk) {
  std::vector<Piece> pieces(static_cast<std::size_t>(chunk.lanes));
  open_.resize(std::max(open_.size(), pieces.size()), -1);
  for (std::int64_t lane = 0; lane < chunk.lanes; ++lane) {
    std::int64_t& record = open_[lane];
    if (chunk.starts[lane] != 0) {
      record = records();
      length_.push_back(0);
      targets_.push_back(0);
    }
    if (record < 0) continue;
    pieces[lane] = {.record = record, .begin = length_[record]};
    length_[record] += chunk.valid[lane];
    if (!chunk.targets.empty()) {
      const std::uint8_t* targets = chunk.targets.data() + lane * chunk.length;
      targets_[record] +=
          chunk.valid[lane] - std::count(targets, targets + chunk.valid[lane], kNoTargetToken);
    }
    if (chunk.ends[lane] != 0) record = -1;
  }
  pieces_.push_back(std::move(pieces));
  return std::ranges::any_of(open_, [](std::int64_t record) { return record >= 0; });
}

void RecordGroup::lay_out(int strands, std::int64_t most_tokens, bool with_targets,
                          RecordSheet& sheet) const {
  sheet.start(length_, strands, most_tokens, with_targets);
  for (std::size_t i = 0; i < chunks(); ++i) {
    const TokenBatch& chunk = chunks_[i];
    if (with_targets && chunk.targets.size() != chunk.tokens.size()) {
      throw std::logic_error("a masked likelihood was asked for without targets");
    }
    for (std::int64_t lane = 0; lane < chunk.lanes; ++lane) {
      const auto [record, begin] = piece(i, lane);
      if (record < 0) continue;
      const auto part_of = [&](const std::vector<std::uint8_t>& values) {
        return std::span(values).subspan(lane * chunk.length, chunk.valid[lane]);
      };
      sheet.write(record, begin, part_of(chunk.tokens));
      if (with_targets) sheet.write_targets(record, begin, part_of(chunk.targets));
    }
  }
}

template <class T>
class LayerMajorInference final : public Inference::Engine {
 public:
  LayerMajorInference(const Model& model, const ExecutionOptions& execution, const InferenceOptions& options)
      : workers_(execution.threads, execution.device),
        on_gpu_(execution.device.kind == DeviceKind::cuda),
        weights_on_gpu_(copy_to_gpu(model.parameters(), workers_.main_context())),
        weights_(weights_on_gpu_ ? *weights_on_gpu_ : model.parameters()),
        backbone_(model.config(), weights_, /*for_backward=*/false, workers_.main_context()),
        sweep_(model.config(), backbone_, execution, workers_),
        readout_(model, weights_, backbone_, options, workers_.main_context()),
        lanes_(lanes_for(execution)),
        masked_(options.readout == Readout::masked_log_likelihood),
        strands_(strands_of(model.config())),
        chunk_tokens_(
            chunk_tokens_for(execution, strands_ * backbone_.saved_bytes_per_token() / backbone_.layers())) {
    for (int i = 0; i < (on_gpu_ ? 2 : 1); ++i) slots_.emplace_back(execution.device);
  }

  std::int64_t width() const override { return readout_.width(); }

  std::int64_t preferred_chunk_tokens() const override { return chunk_tokens_; }
  std::int64_t preferred_lanes() const override { return lanes_; }

  void run(const std::function<bool(TokenBatch&)>& next,
           const std::function<void(const ChunkResult&)>& deliver, const Poll& poll) override {
    const std::size_t ahead = slots_.size() - 1;
    std::size_t taken = 0, delivered = 0;
    const auto deliver_next = [&] { this->deliver(slots_[delivered++ % slots_.size()], deliver); };
    while (slots_[taken % slots_.size()].group.gather(next)) {
      compute(slots_[taken++ % slots_.size()], poll);
      if (taken - delivered > ahead) deliver_next();
    }
    while (delivered < taken) deliver_next();
  }

  std::size_t peak_bytes() const override {
    std::size_t total_bytes = workers_.scratch_bytes() + sweep_.peak_bytes() + readout_.size_bytes();
    for (const Slot& slot : slots_) total_bytes += slot.arena.high_water_bytes();
    if (weights_on_gpu_) total_bytes += weights_on_gpu_->size_bytes();
    return total_bytes;
  }

 private:
  /// A group under way. What of it has to stay on the device until it is delivered lies in the arena.
  struct Slot {
    explicit Slot(Device device) : arena(device) {}

    RecordGroup group;
    RecordSheet sheet;
    Arena arena;
    std::optional<Arena::Scope> scope;
    std::vector<TokenBatch> chunks;       // of the sheet, as the readout is told of them: without tokens
    std::deque<ReadoutLanding> landings;  // of each of these
  };

  void compute(Slot& slot, const Poll& poll) {
    Context& context = workers_.main_context();
    slot.scope.reset();
    slot.scope.emplace(slot.arena);
    slot.group.lay_out(strands_, chunk_tokens_, masked_, slot.sheet);
    const SheetView sheet = slot.sheet.upload(slot.arena, context);
    sweep_.forward(sheet, readout_.layers(), /*for_backward=*/false,
                   poll_by_share(poll, slot.group.tokens()));
    const View<float, 4> joined =
        readout_.joins_strands() ? joined_strands(sheet, slot.arena, context) : View<float, 4>{};
    const std::vector<std::uint8_t> all_start(static_cast<std::size_t>(slot.sheet.lanes()), 1);
    const View<const std::uint8_t, 1> starts = upload(all_start, slot.arena, context);
    slot.chunks.resize(static_cast<std::size_t>(slot.sheet.chunks()));
    while (slot.landings.size() < slot.chunks.size()) slot.landings.emplace_back();
    for (std::int64_t i = 0; i < slot.sheet.chunks(); ++i) {
      describe_chunk(slot.sheet, i, slot.chunks[i]);
      if (joined.empty()) finish(i, context);
      const View<const std::int32_t, 2> targets = sheet.targets.index(i);
      readout_.compute({.batch = slot.chunks[i],
                        .tokens = sheet.tokens.index(i),
                        .valid = sheet.valid.index(i),
                        .starts = i == 0 ? starts : View<const std::uint8_t, 1>{},
                        .residual = sweep_.residual(i),
                        .normed = sweep_.hidden(i),
                        .targets = {targets.data, {targets.size()}, targets.device},
                        .joined = joined.index(i)},
                       slot.arena, slot.landings[i], context);
    }
  }

  /// The final norm, in place of the hidden rows.
  void finish(std::int64_t chunk, Context& context) {
    backbone_.finish(sweep_.residual(chunk), sweep_.hidden(chunk), sweep_.residual(chunk),
                     sweep_.hidden(chunk), context);
  }

  View<float, 4> joined_strands(const SheetView& sheet, Arena& arena, Context& context) {
    const auto [chunks, lanes, tokens] = sheet.tokens.shape;
    const auto joined = arena.take<float, 4>({chunks, lanes, tokens, readout_.features_width()});
    for (std::int64_t i = 0; i < chunks; ++i) {
      const Arena::Scope scope(arena);
      finish(i, context);
      copy(readout_.features(sweep_.residual(i), sweep_.hidden(i), arena, context), joined.index(i), context);
    }
    readout_.join_strands(joined, sheet.length, context);
    return joined;
  }

  /// Records all begin in the first chunk, and count as ended in the last.
  static void describe_chunk(const RecordSheet& sheet, std::int64_t chunk, TokenBatch& batch) {
    const auto records = static_cast<std::size_t>(sheet.records());
    batch.lanes = sheet.records();
    batch.length = sheet.chunk_tokens();
    batch.valid.resize(records);
    for (std::int64_t record = 0; record < sheet.records(); ++record) {
      batch.valid[record] = sheet.valid(chunk, record);
    }
    batch.starts.assign(records, chunk == 0);
    batch.ends.assign(records, chunk == sheet.chunks() - 1);
  }

  void deliver(Slot& slot, const std::function<void(const ChunkResult&)>& deliver) {
    std::vector<View<const float, 3>> tokens;  // of each chunk of the sheet
    for (std::size_t i = 0; i < slot.chunks.size(); ++i) {
      readout_.deliver(slot.chunks[i], slot.landings[i], [&](const ChunkResult& of_sheet) {
        tokens.push_back(of_sheet.tokens);
        if (i + 1 < slot.chunks.size()) return;
        for (std::size_t taken = 0; taken < slot.group.chunks(); ++taken) {
          deliver_chunk(slot, taken, tokens, of_sheet, deliver);
        }
      });
    }
  }

  /// A chunk as it was taken. `of_sheet` is the result of the sheet's last chunk, which has the records.
  void deliver_chunk(const Slot& slot, std::size_t index, const std::vector<View<const float, 3>>& tokens,
                     const ChunkResult& of_sheet, const std::function<void(const ChunkResult&)>& deliver) {
    const TokenBatch& batch = slot.group.chunk(index);
    const auto lanes = static_cast<std::size_t>(batch.lanes);
    ChunkResult result{.batch = batch, .tokens = {}, .records = {}, .log_likelihood = {}, .scored_bases = {}};
    if (!of_sheet.tokens.empty()) result.tokens = rows_of(slot, index, tokens);
    if (!of_sheet.records.empty()) {
      records_.resize(lanes * static_cast<std::size_t>(width()));
      result.records = {records_.data(), {batch.lanes, width()}};
    }
    if (masked_) {
      result.log_likelihood.resize(lanes);
      result.scored_bases.resize(lanes);
    }
    for (std::int64_t lane = 0; lane < batch.lanes; ++lane) {
      const std::int64_t record = slot.group.piece(index, lane).record;
      if (record < 0 || batch.ends[lane] == 0) continue;
      if (!result.records.empty()) {
        std::copy_n(of_sheet.records.at(record), width(), records_.data() + lane * width());
      }
      if (masked_) {
        result.log_likelihood[lane] = of_sheet.log_likelihood[record];
        result.scored_bases[lane] = slot.group.targets(record);
      }
    }
    deliver(result);
  }

  /// The rows of a chunk as it was taken, from where they are in the sheet.
  View<const float, 3> rows_of(const Slot& slot, std::size_t index,
                               const std::vector<View<const float, 3>>& tokens) {
    const TokenBatch& batch = slot.group.chunk(index);
    const std::int64_t longest = std::max<std::int64_t>(1, std::ranges::max(batch.valid));
    rows_.resize(static_cast<std::size_t>(batch.lanes * longest * width()));
    const View<float, 3> rows(rows_.data(), {batch.lanes, longest, width()});
    const std::int64_t chunk_tokens = slot.sheet.chunk_tokens();
    for (std::int64_t lane = 0; lane < batch.lanes; ++lane) {
      const auto [record, begin] = slot.group.piece(index, lane);
      for (std::int64_t t = 0; t < batch.valid[lane];) {
        const std::int64_t position = begin + t, row = position % chunk_tokens;
        const std::int64_t count = std::min(batch.valid[lane] - t, chunk_tokens - row);
        std::copy_n(tokens[position / chunk_tokens].at(record, row), count * width(), rows.at(lane, t));
        t += count;
      }
    }
    return rows;
  }

  Workers workers_;
  bool on_gpu_;
  std::optional<ParameterStore> weights_on_gpu_;
  const ParameterStore& weights_;
  Backbone<T> backbone_;
  LayerSweep<T> sweep_;
  ReadoutStage<T> readout_;
  std::int64_t lanes_;
  bool masked_;
  int strands_;
  std::int64_t chunk_tokens_;  // over all records
  std::deque<Slot> slots_;
  std::vector<float> rows_, records_;  // of the chunk that is being delivered
};

}  // namespace

std::unique_ptr<Inference::Engine> make_layer_major_inference(const Model& model,
                                                              const ExecutionOptions& execution,
                                                              const InferenceOptions& options) {
  return make_for<LayerMajorInference, Inference::Engine>(execution.precision, model, execution, options);
}

}  // namespace longstrand
