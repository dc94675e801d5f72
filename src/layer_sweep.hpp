// The layer-major sweep over a sheet of whole records:
//
//   for each layer:  residual += hidden (of the layer before);  [both strands: their residuals change places]
//                    normed = RMSNorm(residual);  projected = mixer's projection of normed
//                    chunks left to right:  out_f = mixer(forward, projected)
//                    chunks right to left:  out_r = mixer(reverse, projected)
//                    hidden = out_f + out_r, or their product
//
// Without backward it holds the residual and three arrays of T of the whole sheet. A GPU then adds the
// directions up before the projection of the output, where they share it: it is made once, straight into the
// residual and the norm of the next layer.
//
// For backward it keeps the hidden rows of every layer, from which the residual of the layer below is had
// back by subtraction, and the states between chunks; each chunk is computed again, once, on the way back.
// The two directions know nothing of each other, so that two threads can walk them at once; but where they
// share the projection of the input and the sheet is not too large, it is made once, for the whole sheet.
#pragma once

#include <array>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

#include "kernels/wavefront.hpp"
#include "src/backbone.hpp"
#include "src/execution.hpp"
#include "src/record_sheet.hpp"

namespace longstrand {

/// `poll` as a sweep calls it, with the share that is done of a sheet of so many tokens; those of sheets
/// before it count as done.
inline std::function<void(double share)> poll_by_share(const Poll& poll, std::int64_t tokens,
                                                       std::int64_t tokens_before = 0) {
  if (!poll) return {};
  return [=](double share) {
    poll(tokens_before + static_cast<std::int64_t>(share * static_cast<double>(tokens)));
  };
}

template <class T>
class LayerSweep {
 public:
  /// What the shared projection of a sheet may take: 512 Ki tokens of d_model 256 in bfloat16. Backward takes
  /// three times that.
  static constexpr std::int64_t kSharedProjection_bytes = std::int64_t{1} << 30;
  /// What the trails of all layers may take: those of seven chunks at d_model 256, 16 layers.
  static constexpr std::int64_t kTrails_bytes = std::int64_t{1} << 30;

  /// All must outlive it.
  LayerSweep(const ModelConfig& config, const Backbone<T>& backbone, const ExecutionOptions& execution,
             Workers& workers, std::int64_t shared_projection_bytes = kSharedProjection_bytes);

  /// Runs a sheet, on the backbone's device, through the first `layers` layers. `for_backward`: all of them,
  /// and backward() may follow. Everything it takes lies in its own memory until the next call. `poll` is
  /// called before every chunk of all that is done, in backward() too, with the share of all walks in either
  /// direction that are over; it may throw.
  void forward(const SheetView& sheet, int layers, bool for_backward,
               std::function<void(double share)> poll = {});
  /// A chunk's [lanes, T, D] behind the last layer, as Backbone::finish takes them.
  View<float, 3> residual(std::int64_t chunk) const { return residual_.index(chunk); }
  View<T, 3> hidden(std::int64_t chunk) const { return layers_.back().hidden.index(chunk); }
  View<float, 3> d_residual(std::int64_t chunk) const { return d_residual_.index(chunk); }

  /// hidden and d_residual hold gradients by now, as Backbone::finish_backward leaves them. Parameter
  /// gradients are added to `gradients`; to have one for each direction keeps threads apart.
  void backward(const std::array<ParameterStore*, 2>& gradients);

  std::size_t peak_bytes() const;

 private:
  /// What there is of a layer between its two passes; shared by all layers without backward.
  struct Layer {
    std::array<View<T, 4>, 2> out;  // [chunks, lanes, T, D] of each direction
    View<T, 4> hidden;              // the same; that of a sum is out[0] or, with inner_, normed_
    View<float, 4> state;           // [2, chunks, lanes, state_floats] before each chunk; only for backward
    View<float, 3> trail;           // [2, chunks, trail_floats] only for backward, and where there is room
  };

  void start(const SheetView& sheet, int layers, bool for_backward);
  void tell_overflow() const;
  void poll(int work);
  void take_projected(bool for_backward);
  void take_outputs(bool for_backward);
  Layer take_layer(bool for_backward);
  void norm(int index);
  void norm_chunk(int index, std::int64_t chunk, View<const T, 3> hidden, Hidden change, Context& context);
  View<const T, 3> projected(int index, Direction direction, std::int64_t chunk, Arena& arena,
                             Context& context) const;
  Trail trail(int index, Direction direction, std::int64_t chunk, bool walked) const;
  void walk_chunk(int index, Direction direction, std::int64_t n, Context& context);
  void walk_one_after_the_other(int index);
  MixerOutput<T> walk_output(int index, Direction direction, std::int64_t chunk) const;
  void combine_outputs(int index);
  void project_outputs(int index);
  void split_gradient(int index);
  void walk_chunk_back(int index, Direction direction, std::int64_t n, ParameterStore& gradients,
                       Context& context);
  void norm_backward(int index, const std::array<ParameterStore*, 2>& gradients);
  void leave_layer(int index);

  template <class Step>
  void in_both_directions(int work, Step step);
  template <class Step>
  void for_each_chunk(Step step);
  std::int64_t chunks() const { return residual_.shape[0]; }
  std::int64_t chunk_at(Direction direction, std::int64_t n) const;
  /// Whether a layer's projection also norms for the next one.
  bool norms_ahead() const { return !inner_.empty() && !exchanges_residuals_; }
  Context& context() { return workers_.main_context(); }

  const Backbone<T>& backbone_;
  Workers& workers_;
  Combination combination_;
  bool exchanges_residuals_;
  std::int64_t shared_projection_bytes_;

  Arena arena_;                 // of the whole sheet
  std::array<Arena, 2> saved_;  // of the chunk that each direction walks back
  std::optional<Arena::Scope> scope_;
  std::int64_t largest_tokens_ = 0;  // of all sheets so far
  std::function<void(const std::string&)> notify_;
  std::function<void(double)> poll_;
  std::mutex poll_mutex_;
  // Of the sheet, a chunk's walk forward through a layer, in one direction, being 1.
  std::int64_t work_ = 0, done_work_ = 0;

  SheetView sheet_;
  View<float, 4> residual_, d_residual_;  // [chunks, lanes, T, D], as all below
  View<T, 4> normed_;
  std::array<View<T, 4>, 2> of_directions_;  // outputs; on the way back gradients of the normed rows
  View<T, 4> inner_;                         // [chunks, lanes, T, inner_width] in their place; or empty
  std::array<View<T, 4>, 2> d_out_;          // gradients of the outputs; the first also that of hidden
  View<float, 3> state_, d_state_;           // [2, lanes, state_floats]
  View<T, 4> projected_;                     // [chunks, lanes, T, projected_width]; empty where not shared
  std::array<View<T, 4>, 2> d_projected_;    // likewise, of each direction
  std::vector<Layer> layers_;
};

}  // namespace longstrand
