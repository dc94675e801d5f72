#include "src/decoder.hpp"

#include <optional>
#include <stdexcept>

#include "kernels/check.hpp"
#include "kernels/cuda_graph.hpp"
#include "kernels/readback.hpp"
#include "kernels/transfer.hpp"
#include "src/backbone.hpp"
#include "src/mixer.hpp"

namespace longstrand {

class Decoder::Engine {
 public:
  virtual ~Engine() = default;
  virtual std::int64_t lanes() const = 0;
  virtual std::int64_t vocabulary() const = 0;
  virtual View<const float, 2> step(std::span<const std::uint8_t> tokens) = 0;
  /// [layers, state_floats], on the device.
  virtual View<float, 2> state_of(std::int64_t lane) = 0;
  virtual Context& context() = 0;
  virtual std::size_t peak_bytes() const = 0;
};

namespace {

/// Activations are T.
template <class T>
class StepEngine final : public Decoder::Engine {
 public:
  StepEngine(const Model& model, Device device, std::int64_t lanes)
      : context_(device),
        weights_on_gpu_(copy_to_gpu(model.parameters(), context_)),
        backbone_(model.config(), weights_on_gpu_ ? *weights_on_gpu_ : model.parameters(),
                  /*for_backward=*/false, context_),
        state_({backbone_.layers(), lanes, backbone_.state_floats()}, device),
        tokens_({lanes, 1}, device),
        valid_({lanes}, device),
        residual_({lanes, 1, backbone_.d_model()}, device),
        normed_({lanes, 1, backbone_.d_model()}, device),
        logits_({lanes, backbone_.vocabulary()}, device) {
    fill(valid_.view(), 1, context_);
    if constexpr (kCudaBuilt) {
      if (device.kind == DeviceKind::cuda) record();
    }
  }

  std::int64_t lanes() const override { return tokens_.view().shape[0]; }
  std::int64_t vocabulary() const override { return backbone_.vocabulary(); }

  View<const float, 2> step(std::span<const std::uint8_t> tokens) override {
    copy(View<const std::uint8_t, 2>(tokens.data(), tokens_.view().shape), tokens_.view(), context_);
    put_step();
    landing_.start(logits_.view(), context_);
    return landing_.wait();
  }

  View<float, 2> state_of(std::int64_t lane) override {
    const View<float, 3> all = state_.view();
    return {all.at(0, lane), {all.shape[0], all.shape[2]}, {all.stride[0], 1}, all.device};
  }
  Context& context() override { return context_; }

  std::size_t peak_bytes() const override {
    std::size_t total_bytes = context_.scratch.high_water_bytes() + state_.size_bytes() +
                              tokens_.size_bytes() + valid_.size_bytes() + residual_.size_bytes() +
                              normed_.size_bytes() + logits_.size_bytes();
    if (weights_on_gpu_) total_bytes += weights_on_gpu_->size_bytes();
    return total_bytes;
  }

 private:
  void put_step() {
    if constexpr (kCudaBuilt) {
      if (graph_) return cuda::launch(*graph_, context_);
    }
    compute();
  }

  /// From tokens_ to logits_.
  void compute() {
    backbone_.embed(tokens_.view(), residual_.view(), normed_.view(), context_);
    for (int layer = 0; layer < backbone_.layers(); ++layer) {
      backbone_.layer(layer, residual_.view(), normed_.view(), state_.view().index(layer), valid_.view(), {},
                      context_);
    }
    backbone_.logits(rows<const T>(normed_.view()), logits_.view(), context_);
  }

  void record() {
    // A recording can neither allocate nor load code. The first run makes scratch memory grow, the second
    // puts it into one block, which stays.
    compute();
    compute();
    graph_ = cuda::capture([this] { compute(); }, context_);
    fill(state_.view(), 0.0F, context_);
  }

  Context context_;  // its own: what the recording uses of its scratch memory is nobody else's
  std::optional<ParameterStore> weights_on_gpu_;
  Backbone<T> backbone_;
  Array<float, 3> state_;          // [layers, B, state_floats]
  Array<std::uint8_t, 2> tokens_;  // [B, 1]
  Array<std::int64_t, 1> valid_;   // [B]  1 everywhere
  Array<float, 3> residual_;       // [B, 1, D]
  Array<T, 3> normed_;             // [B, 1, D]
  Array<float, 2> logits_;         // [B, V]
  Readback<float, 2> landing_;
  cuda::GraphPtr graph_;  // on a GPU: compute()
};

std::unique_ptr<Decoder::Engine> make_engine(const Model& model, const ExecutionOptions& execution,
                                             std::int64_t lanes) {
  if (lanes < 1) throw std::invalid_argument(concat("decoder: ", lanes, " lanes; expected 1 or more"));
  if (find_mixer(model.config().mixer).sweep != Sweep::chunk_major) {
    throw std::invalid_argument("a bidirectional model cannot go on token by token");
  }
  return make_for<StepEngine, Decoder::Engine>(execution.precision, model, execution.device, lanes);
}

/// Of a lane that must be there.
View<float, 2> state_of(std::int64_t lane, Decoder::Engine& engine) {
  if (lane < 0 || lane >= engine.lanes()) {
    throw std::invalid_argument(concat("decoder: there is no lane ", lane, " of ", engine.lanes()));
  }
  return engine.state_of(lane);
}

}  // namespace

Decoder::Decoder(const Model& model, const ExecutionOptions& execution, std::int64_t lanes)
    : engine_(make_engine(model, execution, lanes)) {}

Decoder::~Decoder() = default;

std::int64_t Decoder::lanes() const { return engine_->lanes(); }

std::int64_t Decoder::vocabulary() const { return engine_->vocabulary(); }

View<const float, 2> Decoder::step(std::span<const std::uint8_t> tokens) {
  if (std::ssize(tokens) != lanes()) {
    throw std::invalid_argument(concat("decoder: ", tokens.size(), " tokens for ", lanes(), " lanes"));
  }
  for (std::size_t lane = 0; lane < tokens.size(); ++lane) {
    if (tokens[lane] >= vocabulary()) {
      throw std::invalid_argument(concat("decoder: token ", int{tokens[lane]}, " of lane ", lane,
                                         " is not below the vocabulary's ", vocabulary()));
    }
  }
  return engine_->step(tokens);
}

void Decoder::reset(std::int64_t lane) { fill(state_of(lane, *engine_), 0.0F, engine_->context()); }

std::vector<float> Decoder::save_state(std::int64_t lane) {
  const View<float, 2> state = state_of(lane, *engine_);
  std::vector<float> saved(static_cast<std::size_t>(state.size()));
  copy(state, View<float, 2>(saved.data(), state.shape), engine_->context());
  return saved;
}

void Decoder::load_state(std::int64_t lane, std::span<const float> saved) {
  const View<float, 2> state = state_of(lane, *engine_);
  if (std::ssize(saved) != state.size()) {
    throw std::invalid_argument(
        concat("decoder: a state of ", saved.size(), " floats; this model's has ", state.size()));
  }
  copy(View<const float, 2>(saved.data(), state.shape), state, engine_->context());
}

std::size_t Decoder::peak_bytes() const { return engine_->peak_bytes(); }

}  // namespace longstrand
