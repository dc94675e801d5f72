#include "src/inference.hpp"

#include <stdexcept>

#include "kernels/check.hpp"
#include "src/inference_engine.hpp"
#include "src/mixer.hpp"

namespace longstrand {
namespace {

void check_options(const Model& model, const InferenceOptions& options) {
  const std::int64_t layers = model.config().n_layer;
  const bool special =
      options.layer == InferenceOptions::kFinal || options.layer == InferenceOptions::kLogits;
  if (!special && (options.layer < 1 || options.layer > layers)) {
    throw std::invalid_argument(
        concat("layer ", options.layer, ": the model has layers 1 to ", layers, ", final and logits"));
  }
  if (options.readout == Readout::probabilities && !model.classifier()) {
    throw std::invalid_argument("the model has no classifier; train one with: longstrand finetune");
  }
  const bool bidirectional = model.config().bidirectional();
  if (bidirectional && options.readout == Readout::log_likelihood) {
    throw std::invalid_argument(
        "a bidirectional model gives no likelihood of a record base by base, only of masked bases");
  }
  if (!bidirectional && options.readout == Readout::masked_log_likelihood) {
    throw std::invalid_argument("a causal model was not trained to predict masked bases");
  }
}

}  // namespace

Inference::Inference(const Model& model, const ExecutionOptions& execution, const InferenceOptions& options) {
  check_options(model, options);
  switch (find_mixer(model.config().mixer).sweep) {
    case Sweep::chunk_major:
      engine_ = make_chunk_major_inference(model, execution, options);
      return;
    case Sweep::layer_major:
      engine_ = make_layer_major_inference(model, execution, options);
      return;
  }
}

Inference::~Inference() = default;

std::int64_t Inference::width() const { return engine_->width(); }

std::int64_t Inference::preferred_chunk_tokens() const { return engine_->preferred_chunk_tokens(); }

std::int64_t Inference::preferred_lanes() const { return engine_->preferred_lanes(); }

void Inference::run(const std::function<bool(TokenBatch&)>& next,
                    const std::function<void(const ChunkResult&)>& deliver, const Poll& poll) {
  engine_->run(next, deliver, poll);
}

std::size_t Inference::peak_bytes() const { return engine_->peak_bytes(); }

}  // namespace longstrand
