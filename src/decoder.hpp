// Runs a model token by token, as generation does: every lane takes one token a step, its recurrent state
// carried from step to step.
//
// On a GPU a step's operations are recorded when the decoder is made, and replayed (kernels/cuda_graph.hpp).
// On a CPU they run on the calling thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "src/execution.hpp"
#include "src/model.hpp"

namespace longstrand {

class Decoder {
 public:
  /// All `lanes` stand before their first token. The model must outlive it. Throws std::invalid_argument for
  /// lanes < 1 and for models that do not run left to right alone. Of `execution`, device and precision
  /// count.
  Decoder(const Model& model, const ExecutionOptions& execution, std::int64_t lanes);
  ~Decoder();

  std::int64_t lanes() const;
  /// Padded, as the logits are.
  std::int64_t vocabulary() const;

  /// tokens [B], one a lane -> logits [B, V] of the token after it, on the host, good until the next step.
  /// Throws std::invalid_argument, before anything is done, for another number of tokens and for tokens that
  /// are not below vocabulary().
  View<const float, 2> step(std::span<const std::uint8_t> tokens);
  /// The lane's next token is the first of a sequence.
  void reset(std::int64_t lane);

  /// A lane's recurrent state, for any lane of any decoder of the same model: many sequences go on from one
  /// beginning, or from where a sequence was left.
  std::vector<float> save_state(std::int64_t lane);
  /// Throws std::invalid_argument where the size is not that of save_state().
  void load_state(std::int64_t lane, std::span<const float> state);

  /// Bytes held for state, activations and scratch.
  std::size_t peak_bytes() const;

  class Engine;

 private:
  std::unique_ptr<Engine> engine_;
};

}  // namespace longstrand
