#include "src/layer_sweep.hpp"

#include <algorithm>

#include "kernels/check.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/strands.hpp"
#include "kernels/transfer.hpp"

namespace longstrand {
namespace {

/// Of a chunk's walk back through a layer: it is walked forward again, and there are two products for each.
constexpr int kWalkBack_work = 3;

/// [chunks, lanes, ...] as [chunks * lanes, ...].
template <class E, int Rank>
View<E, Rank - 1> all_lanes(const View<E, Rank>& x) {
  View<E, Rank - 1> lanes = x.index(0);
  lanes.shape[0] *= x.shape[0];
  return lanes;
}

std::size_t index_of(Direction direction) { return static_cast<std::size_t>(direction); }

}  // namespace

template <class T>
LayerSweep<T>::LayerSweep(const ModelConfig& config, const Backbone<T>& backbone,
                          const ExecutionOptions& execution, Workers& workers,
                          std::int64_t shared_projection_bytes)
    : backbone_(backbone),
      workers_(workers),
      combination_(config.combination),
      exchanges_residuals_(config.equivariant && config.exchange_residuals),
      shared_projection_bytes_(shared_projection_bytes),
      arena_(context().device, Overflow::to_host),
      saved_{Arena(context().device), Arena(context().device)},
      notify_(execution.notify) {}

template <class T>
std::size_t LayerSweep<T>::peak_bytes() const {
  return arena_.high_water_bytes() + saved_[0].high_water_bytes() + saved_[1].high_water_bytes();
}

/// step(direction, n, context), which is so much work, for every chunk n of a direction's walk, in order.
template <class T>
template <class Step>
void LayerSweep<T>::in_both_directions(int work, Step step) {
  workers_.run({.items = chunks(),
                .stages = 2,
                .independent = true,
                .step = [&](std::int64_t n, int direction, Context& context) {
                  poll(work);
                  step(static_cast<Direction>(direction), n, context);
                  return true;
                }});
}

/// step(chunk, half, context) for every chunk, in order within each half of them.
template <class T>
template <class Step>
void LayerSweep<T>::for_each_chunk(Step step) {
  const std::int64_t first_half = (chunks() + 1) / 2;
  workers_.run({.items = first_half,
                .stages = 2,
                .independent = true,
                .step = [&](std::int64_t n, int half, Context& context) {
                  const std::int64_t chunk = n + half * first_half;
                  if (chunk >= chunks()) return true;
                  poll(0);
                  step(chunk, half, context);
                  return true;
                }});
}

template <class T>
void LayerSweep<T>::start(const SheetView& sheet, int layers, bool for_backward) {
  sheet_ = sheet;
  scope_.reset();
  if (sheet.tokens.size() > largest_tokens_) {  // all at once, and not beside what was enough so far
    context().synchronize();
    arena_ = Arena(context().device, Overflow::to_host);
  }
  scope_.emplace(arena_);
  const auto [all_chunks, lanes, tokens] = sheet.tokens.shape;
  const std::array shape = {all_chunks, lanes, tokens, backbone_.d_model()};
  const std::array states_shape = {std::int64_t{2}, lanes, backbone_.state_floats()};
  residual_ = arena_.take<float, 4>(shape);
  normed_ = arena_.take<T, 4>(shape);
  state_ = arena_.take<float, 3>(states_shape);
  take_outputs(for_backward);
  if (for_backward) {
    d_residual_ = arena_.take<float, 4>(shape);
    d_state_ = arena_.take<float, 3>(states_shape);
  }
  take_projected(for_backward);
  layers_.clear();
  for (int i = 0; i < layers; ++i) layers_.push_back(take_layer(for_backward));
  const View<T, 4> d_hidden = layers_.back().hidden;
  // Of a sum, both directions take the same gradient.
  const bool own = for_backward && combination_ == Combination::multiply;
  d_out_ = {d_hidden, own ? arena_.take<T, 4>(shape) : d_hidden};
  if (sheet.tokens.size() > largest_tokens_) tell_overflow();
  largest_tokens_ = std::max(largest_tokens_, sheet.tokens.size());
}

/// Before so much work; what is not a walk counts for nothing. Two threads may call at once.
template <class T>
void LayerSweep<T>::poll(int work) {
  if (!poll_) return;
  const std::lock_guard lock(poll_mutex_);
  poll_(static_cast<double>(done_work_) / static_cast<double>(work_));
  done_work_ += work;
}

template <class T>
void LayerSweep<T>::tell_overflow() const {
  const std::size_t overflow_bytes = arena_.overflow_bytes();
  if (overflow_bytes == 0 || !notify_) return;
  notify_(concat(sheet_.tokens.size(), " tokens do not fit the GPU's memory: ", overflow_bytes >> 20,
                 " MiB of what their layers pass on lie in the host's, which is slower"));
}

template <class T>
void LayerSweep<T>::take_projected(bool for_backward) {
  const Mixer<T>& mixer = backbone_.mixer(0);
  auto shape = residual_.shape;
  shape.back() = mixer.projected_width();
  const std::int64_t size_bytes = sheet_.tokens.size() * shape.back() * std::int64_t{sizeof(T)};
  const bool shared = mixer.shares_projections() && size_bytes <= shared_projection_bytes_;
  projected_ = {};
  d_projected_ = {};
  if (!shared) return;
  projected_ = arena_.take<T, 4>(shape);
  if (for_backward) d_projected_ = {arena_.take<T, 4>(shape), arena_.take<T, 4>(shape)};
}

/// Of both directions together only on a GPU, where one thread walks them.
template <class T>
void LayerSweep<T>::take_outputs(bool for_backward) {
  const Mixer<T>& mixer = backbone_.mixer(0);
  auto shape = residual_.shape;
  inner_ = {};
  of_directions_ = {};
  if (!for_backward && combination_ == Combination::add && mixer.shares_projections() &&
      context().device.kind == DeviceKind::cuda) {
    shape.back() = mixer.inner_width();
    inner_ = arena_.take<T, 4>(shape);
  } else {
    of_directions_ = {arena_.take<T, 4>(shape), arena_.take<T, 4>(shape)};
  }
}

template <class T>
auto LayerSweep<T>::take_layer(bool for_backward) -> Layer {
  if (!for_backward) {
    // The last layer's normed rows are of no more use when its outputs are projected.
    const View<T, 4> hidden = inner_.empty() ? of_directions_[0] : normed_;
    return {.out = of_directions_, .hidden = hidden, .state = {}, .trail = {}};
  }
  const auto& shape = residual_.shape;
  Layer layer;
  layer.hidden = arena_.take<T, 4>(shape);
  // Backward asks for the factors of a product, but not for the terms of a sum.
  const bool keeps_outputs = combination_ == Combination::multiply;
  layer.out[0] = keeps_outputs ? arena_.take<T, 4>(shape) : layer.hidden;
  layer.out[1] = keeps_outputs ? arena_.take<T, 4>(shape) : of_directions_[1];
  layer.state = arena_.take<float, 4>({2, shape[0], shape[1], backbone_.state_floats()});
  const std::int64_t trail_floats = backbone_.mixer(0).trail_floats(shape[1], shape[2], context());
  const std::int64_t trail_bytes = 2 * shape[0] * trail_floats * std::int64_t{sizeof(float)};
  if (trail_floats > 0 && (std::ssize(layers_) + 1) * trail_bytes <= kTrails_bytes) {
    layer.trail = arena_.take<float, 3>({2, shape[0], trail_floats});
  }
  return layer;
}

template <class T>
void LayerSweep<T>::forward(const SheetView& sheet, int layers, bool for_backward,
                            std::function<void(double share)> poll) {
  start(sheet, layers, for_backward);
  poll_ = std::move(poll);
  work_ = 2 * layers * chunks() * (1 + (for_backward ? kWalkBack_work : 0));
  done_work_ = 0;
  for_each_chunk([&](std::int64_t chunk, int, Context& context) {
    backbone_.embed(sheet_.tokens.index(chunk), residual(chunk), context);
  });
  for (int i = 0; i < layers; ++i) {
    if (i == 0 || !norms_ahead()) norm(i);
    if (inner_.empty()) {
      in_both_directions(/*work=*/1, [&](Direction direction, std::int64_t n, Context& context) {
        walk_chunk(i, direction, n, context);
      });
      combine_outputs(i);
    } else {
      walk_one_after_the_other(i);
      project_outputs(i);
    }
  }
}

template <class T>
void LayerSweep<T>::norm(int index) {
  View<const T, 4> below = index == 0 ? View<const T, 4>{} : layers_[index - 1].hidden;
  if (exchanges_residuals_) {
    if (index > 0) {
      for_each_chunk([&](std::int64_t chunk, int, Context& context) {
        add<T>(rows(below.index(chunk)), rows(residual(chunk)), context);
      });
      below = {};
    }
    exchange_strands(residual_, sheet_.length, context());
  }
  for_each_chunk([&](std::int64_t chunk, int, Context& context) {
    norm_chunk(index, chunk, below.index(chunk), Hidden::add, context);
  });
}

/// And what follows from the normed rows for both directions.
template <class T>
void LayerSweep<T>::norm_chunk(int index, std::int64_t chunk, View<const T, 3> hidden, Hidden change,
                               Context& context) {
  backbone_.norm(index, residual(chunk), hidden, residual(chunk), normed_.index(chunk), context, change);
  if (projected_.empty() || !inner_.empty()) return;
  backbone_.mixer(index).project(Direction::forward, normed_.index(chunk), projected_.index(chunk), context);
}

/// In `arena` where it is not shared.
template <class T>
View<const T, 3> LayerSweep<T>::projected(int index, Direction direction, std::int64_t chunk, Arena& arena,
                                          Context& context) const {
  if (!projected_.empty()) return projected_.index(chunk);
  const Mixer<T>& mixer = backbone_.mixer(index);
  const View<const T, 3> normed = normed_.index(chunk);
  const auto of_chunk = arena.take<T, 3>({normed.shape[0], normed.shape[1], mixer.projected_width()});
  mixer.project(direction, normed, of_chunk, context);
  return of_chunk;
}

template <class T>
std::int64_t LayerSweep<T>::chunk_at(Direction direction, std::int64_t n) const {
  return direction == Direction::forward ? n : chunks() - 1 - n;
}

template <class T>
Trail LayerSweep<T>::trail(int index, Direction direction, std::int64_t chunk, bool walked) const {
  const View<float, 3>& trails = layers_[index].trail;
  if (trails.empty()) return {};
  return {.floats = trails.index(static_cast<std::int64_t>(index_of(direction))).index(chunk),
          .walked = walked};
}

/// The n-th chunk of a direction's walk. Into inner_, the first direction also makes what the other one
/// takes, where there is room for it.
template <class T>
void LayerSweep<T>::walk_chunk(int index, Direction direction, std::int64_t n, Context& context) {
  const std::size_t d = index_of(direction);
  const std::int64_t chunk = chunk_at(direction, n);
  const Mixer<T>& mixer = backbone_.mixer(index);
  const Layer& layer = layers_[index];
  const View<float, 2> state = state_.index(d);
  if (n == 0) fill(state, 0.0F, context);
  if (!layer.state.empty()) copy(state, layer.state.index(d).index(chunk), context);
  const View<const std::int64_t, 1> valid = sheet_.valid.index(chunk);
  const MixerOutput<T> output = walk_output(index, direction, chunk);
  const Trail left = trail(index, direction, chunk, /*walked=*/false);
  const Arena::Scope scope(context.scratch);
  if (!inner_.empty() && (direction == Direction::forward || projected_.empty())) {
    const View<T, 3> room = projected_.empty() ? View<T, 3>{} : projected_.index(chunk);
    mixer.project_and_forward(direction, normed_.index(chunk), room, state, valid, output, nullptr, left,
                              context);
  } else {
    mixer.forward(direction, projected(index, direction, chunk, context.scratch, context), state, valid,
                  output, nullptr, left, context);
  }
}

template <class T>
void LayerSweep<T>::walk_one_after_the_other(int index) {
  for (const Direction direction : {Direction::forward, Direction::reverse}) {
    for (std::int64_t n = 0; n < chunks(); ++n) {
      poll(1);
      walk_chunk(index, direction, n, context());
    }
  }
}

template <class T>
MixerOutput<T> LayerSweep<T>::walk_output(int index, Direction direction, std::int64_t chunk) const {
  if (inner_.empty()) return layers_[index].out[index_of(direction)].index(chunk);
  return Unprojected<T>{.rows = inner_.index(chunk), .accumulate = direction == Direction::reverse};
}

/// What both directions have left in inner_: on to the next layer, or into the hidden rows.
template <class T>
void LayerSweep<T>::project_outputs(int index) {
  const Mixer<T>& mixer = backbone_.mixer(index);
  const bool goes_on = norms_ahead() && index + 1 < std::ssize(layers_);
  for_each_chunk([&](std::int64_t chunk, int, Context& context) {
    const View<T, 3> normed = normed_.index(chunk);
    const MixerOutput<T> output =
        goes_on ? MixerOutput<T>(backbone_.residual_norm(index + 1, residual(chunk), normed))
                : MixerOutput<T>(hidden(chunk));
    mixer.project_output(Direction::forward, inner_.index(chunk), output, context);
  });
}

template <class T>
void LayerSweep<T>::combine_outputs(int index) {
  const Layer& layer = layers_[index];
  for_each_chunk([&](std::int64_t chunk, int, Context& context) {
    const View<T, 3> hidden = layer.hidden.index(chunk);
    const View<const T, 2> other = rows<const T>(layer.out[1].index(chunk));
    if (combination_ == Combination::add) return add(other, rows(hidden), context);
    if (layer.hidden.data != layer.out[0].data) copy(layer.out[0].index(chunk), hidden, context);
    multiply(other, rows(hidden), context);
  });
}

template <class T>
void LayerSweep<T>::backward(const std::array<ParameterStore*, 2>& gradients) {
  for (int i = static_cast<int>(layers_.size()) - 1; i >= 0; --i) {
    split_gradient(i);
    in_both_directions(kWalkBack_work, [&](Direction direction, std::int64_t n, Context& context) {
      walk_chunk_back(i, direction, chunks() - 1 - n, *gradients[index_of(direction)], context);
    });
    norm_backward(i, gradients);
    if (i > 0) leave_layer(i);
  }
  backbone_.embed_backward(all_lanes(sheet_.tokens), all_lanes(d_residual_), *gradients[0], context());
}

/// The gradient of the layer's output, to each direction its own.
template <class T>
void LayerSweep<T>::split_gradient(int index) {
  if (combination_ == Combination::add) return;
  const Layer& layer = layers_[index];
  for_each_chunk([&](std::int64_t chunk, int, Context& context) {
    multiply_backward<T>(rows(layer.out[0].index(chunk)), rows(layer.out[1].index(chunk)),
                         rows(d_out_[0].index(chunk)), rows(d_out_[0].index(chunk)),
                         rows(d_out_[1].index(chunk)), context);
  });
}

template <class T>
void LayerSweep<T>::walk_chunk_back(int index, Direction direction, std::int64_t n, ParameterStore& gradients,
                                    Context& context) {
  const std::size_t d = index_of(direction);
  const std::int64_t chunk = chunk_at(direction, n);
  const Mixer<T>& mixer = backbone_.mixer(index);
  const View<const std::int64_t, 1> valid = sheet_.valid.index(chunk);
  const View<float, 2> d_state = d_state_.index(d);
  if (n == chunks() - 1) fill(d_state, 0.0F, context);
  // One stream of operations needs no room of each direction's own.
  Arena& keep = saved_[context.device.kind == DeviceKind::cuda ? 0 : d];
  const Arena::Scope scope(keep), scratch_scope(context.scratch);
  const View<const T, 3> input = projected(index, direction, chunk, keep, context);
  const auto saved = mixer.forward(direction, input, layers_[index].state.index(d).index(chunk), valid, {},
                                   &keep, trail(index, direction, chunk, /*walked=*/true), context);
  const View<T, 3> d_input =
      d_projected_[d].empty() ? context.scratch.take<T, 3>(input.shape) : d_projected_[d].index(chunk);
  mixer.backward(direction, input, *saved, d_out_[d].index(chunk), valid, d_state, d_input, gradients,
                 context);
  if (!projected_.empty()) return;
  mixer.project_backward(direction, normed_.index(chunk), d_input, of_directions_[d].index(chunk), gradients,
                         context);
}

template <class T>
void LayerSweep<T>::norm_backward(int index, const std::array<ParameterStore*, 2>& gradients) {
  for_each_chunk([&](std::int64_t chunk, int half, Context& context) {
    const View<T, 3> d_normed = of_directions_[0].index(chunk);
    if (projected_.empty()) {
      add<T, T>(rows(of_directions_[1].index(chunk)), rows(d_normed), context);
    } else {
      const View<T, 3> d_projected = d_projected_[0].index(chunk);
      add<T, T>(rows(d_projected_[1].index(chunk)), rows(d_projected), context);
      backbone_.mixer(index).project_backward(Direction::forward, normed_.index(chunk), d_projected, d_normed,
                                              *gradients[half], context);
    }
    backbone_.norm_backward(index, residual(chunk), d_normed, d_residual(chunk), d_out_[0].index(chunk),
                            *gradients[half], context);
  });
  if (exchanges_residuals_) exchange_strands(d_residual_, sheet_.length, context());
}

/// Brings the residual, the normed rows and the gradients to the layer below.
template <class T>
void LayerSweep<T>::leave_layer(int index) {
  if (exchanges_residuals_) exchange_strands(residual_, sheet_.length, context());
  for_each_chunk([&](std::int64_t chunk, int, Context& context) {
    if (exchanges_residuals_) {
      convert<float, T>(rows<const float>(d_residual(chunk)), rows(d_out_[0].index(chunk)), context);
    }
    norm_chunk(index - 1, chunk, layers_[index - 1].hidden.index(chunk), Hidden::subtract, context);
  });
}

template class LayerSweep<float>;
template class LayerSweep<bfloat16>;

}  // namespace longstrand
