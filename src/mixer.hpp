// The sequence layer of a block: what the table below names, declares its parameters and takes part in a
// sweep.
//
// To add one: a class derived from Mixer<T>, and a row in mixer.cpp. To add a sweep: a value of Sweep, and an
// engine for it in inference.cpp and in trainer.cpp, whose readout and head serve all sweeps.
#pragma once

#include <memory>
#include <random>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "kernels/context.hpp"
#include "kernels/direction.hpp"
#include "kernels/linear.hpp"
#include "kernels/view.hpp"
#include "src/config.hpp"
#include "src/parameters.hpp"

namespace longstrand {

/// The order in which chunks (along the record) and layers are visited.
enum class Sweep : std::uint8_t {
  chunk_major,  // for each chunk, all layers: state runs left to right only; memory need not grow with the
                // record
  layer_major,  // for each layer, all chunks, in both directions: keeps the layer's input of the whole record
};

/// What a walk over a chunk leaves behind, so that the same walk is quicker another time.
struct Trail {
  View<float, 1> floats;  // Mixer::trail_floats of them; none: nothing is left
  bool walked = false;    // whether they have been left: then they are read
};

/// The output of a walk before its last projection. `accumulate`: added to that of the walk in the other
/// direction.
template <class T>
struct Unprojected {
  View<T, 3> rows;  // [B, T, inner_width]
  bool accumulate = false;
};

/// Where the output of a walk goes: nowhere, where nothing but the state and what is kept is wanted; into an
/// array [B, T, D]; on to the next layer; or, before its last projection, into an array or onto it.
template <class T>
using MixerOutput = std::variant<std::monostate, View<T, 3>, ResidualNorm<T>, Unprojected<T>>;

/// A layer's input is projected, each token by itself; then a walk goes over the chunks of a record in one
/// direction, with a state of its own. Causal mixers are only ever walked forward.
template <class T>
class Mixer {
 public:
  /// What forward keeps of one chunk for backward. Its views lie in the arena given to forward.
  struct Saved {
    virtual ~Saved() = default;
  };

  virtual ~Mixer() = default;

  /// Floats of recurrent state per lane, of one direction.
  virtual std::int64_t state_floats() const = 0;
  /// Width of the projected input.
  virtual std::int64_t projected_width() const = 0;
  /// Width of what Unprojected takes.
  virtual std::int64_t inner_width() const = 0;
  /// Whether both directions have the same projections, of the input and of the output.
  virtual bool shares_projections() const = 0;
  /// About what forward keeps of a token for backward, in one direction.
  virtual std::int64_t saved_bytes_per_token() const = 0;
  /// Of the Trail of a walk over such a chunk; 0 where the device has no use for one.
  virtual std::int64_t trail_floats(std::int64_t lanes, std::int64_t tokens, Context& context) const = 0;
  /// Brings weights into the form that the operations take; again after every change of the weights.
  virtual void prepare(bool for_backward, Context& context) = 0;

  /// x [B, T, D] -> projected [B, T, projected_width].
  virtual void project(Direction direction, View<const T, 3> x, View<T, 3> projected,
                       Context& context) const = 0;
  /// projected -> output; state [B, state_floats] goes from before the walk over the chunk to after it;
  /// valid [B]. With `keep`, returns what backward needs, stored there; without, nullptr.
  virtual std::unique_ptr<Saved> forward(Direction direction, View<const T, 3> projected,
                                         View<float, 2> state, View<const std::int64_t, 1> valid,
                                         const MixerOutput<T>& output, Arena* keep, const Trail& trail,
                                         Context& context) const = 0;

  /// Unprojected rows [B, T, inner_width] -> output.
  virtual void project_output(Direction direction, View<const T, 3> inner, const MixerOutput<T>& output,
                              Context& context) const = 0;

  /// project and forward. A mixer may have a quicker way. `projected` may be empty where nothing is kept.
  virtual std::unique_ptr<Saved> project_and_forward(Direction direction, View<const T, 3> x,
                                                     View<T, 3> projected, View<float, 2> state,
                                                     View<const std::int64_t, 1> valid,
                                                     const MixerOutput<T>& output, Arena* keep,
                                                     const Trail& trail, Context& context) const = 0;

  /// d_y [B, T, D] -> d_projected, overwritten; d_state [B, state_floats] goes from the gradient of the
  /// state after the walk to that of the state before it; parameter gradients are added to `gradients`.
  virtual void backward(Direction direction, View<const T, 3> projected, const Saved& saved,
                        View<const T, 3> d_y, View<const std::int64_t, 1> valid, View<float, 2> d_state,
                        View<T, 3> d_projected, ParameterStore& gradients, Context& context) const = 0;
  /// d_projected -> d_x [B, T, D], overwritten; parameter gradients are added to `gradients`.
  virtual void project_backward(Direction direction, View<const T, 3> x, View<const T, 3> d_projected,
                                View<T, 3> d_x, ParameterStore& gradients, Context& context) const = 0;
};

/// A mixer by name. `prefix` is the layer's, as "backbone.layers.0.mixer.".
struct MixerEntry {
  std::string name;  // as in config.json's ssm_cfg.layer
  Sweep sweep;
  std::vector<ParameterSpec> (*declare)(const ModelConfig& config, const std::string& prefix);
  void (*initialise)(const ModelConfig& config, const std::string& prefix, ParameterStore& weights,
                     std::mt19937_64& random);
  /// Brings channels in the order in which a GPU is quickest, without another effect; or null.
  void (*sort_channels)(const ModelConfig& config, const std::string& prefix, ParameterStore& weights);
  std::unique_ptr<Mixer<float>> (*make_fp32)(const ModelConfig& config, const std::string& prefix,
                                             const ParameterStore& weights);
  std::unique_ptr<Mixer<bfloat16>> (*make_bf16)(const ModelConfig& config, const std::string& prefix,
                                                const ParameterStore& weights);
};

/// Throws std::runtime_error that lists the known names.
const MixerEntry& find_mixer(const std::string& name);

template <class T>
std::unique_ptr<Mixer<T>> make_mixer(const ModelConfig& config, const std::string& prefix,
                                     const ParameterStore& weights) {
  const MixerEntry& entry = find_mixer(config.mixer);
  if constexpr (std::is_same_v<T, float>) {
    return entry.make_fp32(config, prefix, weights);
  } else {
    return entry.make_bf16(config, prefix, weights);
  }
}

}  // namespace longstrand
