// Exact training of bidirectional models: a bundle's sequences, whole, are laid out as a sheet
// (src/record_sheet.hpp), run through all layers, through the head and back (src/layer_sweep.hpp).
#include <optional>
#include <vector>

#include "kernels/elementwise.hpp"
#include "kernels/transfer.hpp"
#include "src/layer_sweep.hpp"
#include "src/strands.hpp"
#include "src/training_head.hpp"

namespace longstrand {
namespace {

/// Lanes and chunks as in inference: of what is kept for backward, only that of one layer and direction is
/// there at a time.
BundleLimits limits_for(const ExecutionOptions& execution, std::int64_t bytes_per_token) {
  const std::int64_t chunk_tokens = chunk_tokens_for(execution, bytes_per_token);
  return {.lanes = lanes_for(execution), .whole_tokens = chunk_tokens, .chunk_tokens = chunk_tokens};
}

template <class T>
class LayerMajorTrainer final : public Trainer::Engine {
 public:
  LayerMajorTrainer(Model& model, const ExecutionOptions& execution, const TrainerOptions& options)
      : workers_(execution.threads, execution.device),
        weights_on_gpu_(copy_to_gpu(model.parameters(), workers_.main_context())),
        weights_(weights_on_gpu_ ? *weights_on_gpu_ : model.parameters()),
        backbone_(model.config(), weights_, /*for_backward=*/!options.freeze_backbone,
                  workers_.main_context()),
        sweep_(model.config(), backbone_, execution, workers_),
        head_(make_training_head<T>(model, weights_, backbone_, options, workers_.main_context())),
        frozen_(options.freeze_backbone),
        masked_(options.objective == Objective::masked_token),
        strands_(strands_of(model.config())),
        limits_(limits_for(execution, strands_ * backbone_.saved_bytes_per_token() / backbone_.layers())),
        arena_(execution.device) {
    if (!frozen_) of_reverse_ = weights_.like();
  }

  ParameterStore& weights() override { return weights_; }

  BatchTotals accumulate(std::span<const TrainingSequence> batch, ParameterStore& gradients,
                         const Poll& poll) override {
    start_batch(batch, &gradients);
    if (!frozen_) fill(of_reverse_.all(), 0.0F, context());
    for (const Bundle& bundle : bundles_) {
      forward(bundle, /*for_backward=*/!frozen_, poll);
      if (frozen_ || (head_->needs_whole_sequence() && sheet_.chunks() > 1)) head_forward(bundle);
      if (frozen_) continue;
      for (std::int64_t i = 0; i < sheet_.chunks(); ++i) {
        head_->backward(chunk_of(bundle, i), sweep_.residual(i), sweep_.hidden(i), sweep_.d_residual(i),
                        context());
      }
      sweep_.backward({&gradients, &of_reverse_});
    }
    if (!frozen_) add(of_reverse_.all(), gradients.all(), context());
    head_->finish_batch(context());
    return head_->totals(context());
  }

  BatchTotals evaluate(std::span<const TrainingSequence> batch, const Poll& poll) override {
    start_batch(batch, nullptr);
    for (const Bundle& bundle : bundles_) {
      forward(bundle, /*for_backward=*/false, poll);
      head_forward(bundle);
    }
    return head_->totals(context());
  }

  void weights_changed() override {
    if (!frozen_) backbone_.prepare(context());
    head_->weights_changed(weights_, context());
  }
  Context& context() override { return workers_.main_context(); }

  std::size_t peak_bytes() const override {
    return workers_.scratch_bytes() + head_->size_bytes() + sweep_.peak_bytes() + arena_.high_water_bytes() +
           of_reverse_.size_bytes();
  }

 private:
  void start_batch(std::span<const TrainingSequence> batch, ParameterStore* gradients) {
    bundles_ = bundle_up(batch, limits_);
    begun_tokens_ = 0;
    std::int64_t lanes = 0;
    for (const Bundle& bundle : bundles_) lanes += bundle.lanes();
    head_->start_batch(lanes, gradients, context());
  }

  /// `poll` is told the bundle's share of its way back too.
  void forward(const Bundle& bundle, bool for_backward, const Poll& poll) {
    lay_out(bundle);
    scope_.reset();
    scope_.emplace(arena_);
    on_device_ = sheet_.upload(arena_, context());
    sweep_.forward(on_device_, backbone_.layers(), for_backward,
                   poll_by_share(poll, bundle.tokens(), begun_tokens_));
    begun_tokens_ += bundle.tokens();
  }

  void lay_out(const Bundle& bundle) {
    std::vector<std::int64_t> length;
    for (const TrainingSequence* sequence : bundle.sequences) length.push_back(sequence->length);
    sheet_.start(length, strands_, limits_.chunk_tokens, masked_);
    std::vector<std::uint8_t> values;
    for (std::size_t b = 0; b < bundle.sequences.size(); ++b) {
      const TrainingSequence& sequence = *bundle.sequences[b];
      const auto record = static_cast<std::int64_t>(b);
      values.resize(static_cast<std::size_t>(sequence.length));
      sequence.read(0, values);
      sheet_.write(record, 0, values);
      if (!masked_) continue;
      sequence.read_targets(0, values);
      sheet_.write_targets(record, 0, values);
    }
  }

  void head_forward(const Bundle& bundle) {
    for (std::int64_t i = 0; i < sheet_.chunks(); ++i) {
      const Arena::Scope scope(context().scratch);
      // Apart: backward may ask for what goes in.
      const auto [total, out] = backbone_.finish(sweep_.residual(i), sweep_.hidden(i), context());
      head_->forward(chunk_of(bundle, i), out, context());
    }
  }

  TrainingChunk chunk_of(const Bundle& bundle, std::int64_t index) const {
    return {.bundle = &bundle,
            .index = index,
            .first = index == 0,
            .last = index == sheet_.chunks() - 1,
            .tokens = on_device_.tokens.index(index),
            .valid = on_device_.valid.index(index),
            .next = {},
            .ends = on_device_.ends.index(index),
            .targets = on_device_.targets,
            .length = on_device_.length};
  }

  Workers workers_;
  std::optional<ParameterStore> weights_on_gpu_;
  ParameterStore& weights_;
  Backbone<T> backbone_;
  LayerSweep<T> sweep_;
  std::unique_ptr<TrainingHead<T>> head_;
  bool frozen_, masked_;
  int strands_;
  BundleLimits limits_;
  ParameterStore of_reverse_;      // gradients of the reverse direction, which may run beside the forward one
  std::vector<Bundle> bundles_;    // of the batch
  std::int64_t begun_tokens_ = 0;  // of these, so far
  RecordSheet sheet_;              // of the bundle under way
  Arena arena_;
  std::optional<Arena::Scope> scope_;
  SheetView on_device_;
};

}  // namespace

std::unique_ptr<Trainer::Engine> make_layer_major_trainer(Model& model, const ExecutionOptions& execution,
                                                          const TrainerOptions& options) {
  return make_for<LayerMajorTrainer, Trainer::Engine>(execution.precision, model, execution, options);
}

}  // namespace longstrand
