#include "src/mamba1.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "kernels/linear_conv.hpp"
#include "kernels/selection.hpp"
#include "kernels/transfer.hpp"
#include "src/random.hpp"

namespace longstrand {

std::vector<ParameterSpec> declare_mamba1(const ModelConfig& config, const std::string& prefix) {
  const std::int64_t d_inner = config.d_inner();
  const std::int64_t dt_rank = config.dt_rank_or_auto();
  return {
      {.name = prefix + "in_proj.weight", .shape = {2 * d_inner, config.d_model}, .decay = true},
      {.name = prefix + "conv1d.weight", .shape = {d_inner, 1, config.d_conv}, .decay = true},
      {.name = prefix + "conv1d.bias", .shape = {d_inner}},
      {.name = prefix + "x_proj.weight", .shape = {dt_rank + 2 * config.d_state, d_inner}, .decay = true},
      {.name = prefix + "dt_proj.weight", .shape = {d_inner, dt_rank}, .decay = true},
      {.name = prefix + "dt_proj.bias", .shape = {d_inner}},
      {.name = prefix + "A_log", .shape = {d_inner, config.d_state}},
      {.name = prefix + "D", .shape = {d_inner}},
      {.name = prefix + "out_proj.weight", .shape = {config.d_model, d_inner}, .decay = true},
  };
}

void initialise_mamba1(const ModelConfig& config, const std::string& prefix, ParameterStore& weights,
                       std::mt19937_64& random) {
  const auto fill_uniform = [&](const char* name, double bound) {
    if (!weights.contains(prefix + name)) return;  // shared with the other direction, under its name
    const View<float, 1> values = weights.flat(prefix + name);
    std::generate_n(values.data, values.size(),
                    [&] { return static_cast<float>(uniform(random, -bound, bound)); });
  };
  const auto fan_in_bound = [](std::int64_t fan_in) { return 1.0 / std::sqrt(static_cast<double>(fan_in)); };
  fill_uniform("in_proj.weight", fan_in_bound(config.d_model));
  fill_uniform("conv1d.weight", fan_in_bound(config.d_conv));
  fill_uniform("conv1d.bias", fan_in_bound(config.d_conv));
  fill_uniform("x_proj.weight", fan_in_bound(config.d_inner()));
  fill_uniform("dt_proj.weight", fan_in_bound(config.dt_rank_or_auto()));
  fill_uniform("out_proj.weight",
               fan_in_bound(config.d_inner()) / std::sqrt(static_cast<double>(config.n_layer)));

  const View<float, 1> bias = weights.flat(prefix + "dt_proj.bias");
  std::vector<double> steps(static_cast<std::size_t>(bias.size()));
  for (double& step : steps) {
    step = std::max(std::exp(uniform(random, std::log(kSmallestStep), std::log(kLargestStep))), kStepFloor);
  }
  // One channel is as good as another: they come in the order that a GPU's scan is quickest in.
  const std::vector<std::int64_t> order = scan_channel_order(steps);
  for (std::int64_t d = 0; d < bias.size(); ++d) {
    const double step = steps[static_cast<std::size_t>(order[static_cast<std::size_t>(d)])];
    bias.data[d] = static_cast<float>(step + std::log(-std::expm1(-step)));  // softplus(bias) = step
  }
  const View<float, 2> a_log = weights.matrix(prefix + "A_log");
  for (std::int64_t d = 0; d < a_log.shape[0]; ++d) {
    for (std::int64_t n = 0; n < a_log.shape[1]; ++n) *a_log.at(d, n) = std::log(static_cast<float>(n + 1));
  }
  const View<float, 1> skip = weights.flat(prefix + "D");
  std::fill_n(skip.data, skip.size(), 1.0F);
}

namespace {

/// Rows [first, first + order.size()) in that order.
void sort_rows(View<float, 2> x, std::int64_t first, const std::vector<std::int64_t>& order) {
  std::vector<float> rows;
  for (const std::int64_t row : order)
    rows.insert(rows.end(), x.at(first + row), x.at(first + row) + x.shape[1]);
  std::ranges::copy(rows, x.at(first));
}

void sort_columns(View<float, 2> x, const std::vector<std::int64_t>& order) {
  std::vector<float> sorted(order.size());
  for (std::int64_t row = 0; row < x.shape[0]; ++row) {
    std::ranges::transform(order, sorted.begin(), [&](std::int64_t column) { return x.at(row)[column]; });
    std::ranges::copy(sorted, x.at(row));
  }
}

/// What of a channel's slowest state decays at its bias: A softplus(bias).
std::vector<double> channel_pace(View<const float, 1> bias, View<const float, 2> a_log) {
  std::vector<double> pace(static_cast<std::size_t>(bias.size()));
  for (std::int64_t d = 0; d < bias.size(); ++d) {
    const double step = std::log1p(std::exp(static_cast<double>(bias.data[d])));
    pace[d] =
        step * std::exp(static_cast<double>(*std::min_element(a_log.at(d), a_log.at(d) + a_log.shape[1])));
    if (std::isnan(pace[d])) pace[d] = 0;  // of a model that has diverged
  }
  return pace;
}

}  // namespace

void sort_mamba1_channels(const ModelConfig& config, const std::string& prefix, ParameterStore& weights) {
  const auto matrix = [&](const char* name) { return weights.matrix(prefix + name); };
  const auto order = scan_channel_order(channel_pace(weights.flat(prefix + "dt_proj.bias"), matrix("A_log")));
  sort_rows(matrix("in_proj.weight"), 0, order);
  sort_rows(matrix("in_proj.weight"), config.d_inner(), order);
  for (const char* name : {"conv1d.weight", "conv1d.bias", "dt_proj.weight", "dt_proj.bias", "A_log", "D"}) {
    sort_rows(matrix(name), 0, order);
  }
  for (const char* name : {"x_proj.weight", "out_proj.weight"}) sort_columns(matrix(name), order);
}

template <class T>
struct Mamba1<T>::Activations : Saved {
  View<T, 3> u;                // [B, T, d_inner]
  View<T, 3> x_dbl;            // [B, T, dt_rank + 2 d_state]
  View<T, 3> dt;               // [B, T, d_inner]
  View<T, 3> y;                // [B, T, d_inner]
  View<float, 4> checkpoints;  // of the scan
  View<float, 2> state;        // [B, state_floats]  before the chunk
};

template <class T>
Mamba1<T>::Mamba1(const ModelConfig& config, std::string prefix, const ParameterStore& weights,
                  const Mamba1* projections)
    : d_inner_(config.d_inner()),
      d_state_(config.d_state),
      d_conv_(config.d_conv),
      dt_rank_(config.dt_rank_or_auto()),
      prefix_(std::move(prefix)),
      projections_(projections != nullptr ? projections : this),
      in_proj_weight_(weights.matrix(projections_->prefix_ + "in_proj.weight")),
      conv_weight_(weights.matrix(prefix_ + "conv1d.weight")),
      x_proj_weight_(weights.matrix(prefix_ + "x_proj.weight")),
      dt_proj_weight_(weights.matrix(prefix_ + "dt_proj.weight")),
      a_log_(weights.matrix(prefix_ + "A_log")),
      out_proj_weight_(weights.matrix(projections_->prefix_ + "out_proj.weight")),
      conv_bias_(weights.flat(prefix_ + "conv1d.bias")),
      dt_proj_bias_(weights.flat(prefix_ + "dt_proj.bias")),
      d_(weights.flat(prefix_ + "D")),
      decay_({d_state_, d_inner_}, a_log_.device) {}

template <class T>
void Mamba1<T>::prepare(bool for_backward, Context& context) {
  x_proj_.pack(x_proj_weight_, for_backward, context);
  dt_proj_.pack(dt_proj_weight_, for_backward, context);
  prepare_decay(a_log_, decay_.view(), context);
  if (projections_ != this) return;
  in_proj_.pack(in_proj_weight_, for_backward, context);
  out_proj_.pack(out_proj_weight_, for_backward, context);
}

template <class T>
std::int64_t Mamba1<T>::saved_bytes_per_token() const {
  const std::int64_t activations = 3 * d_inner_ + dt_rank_ + 2 * d_state_;  // u, dt, y; x_dbl
  const DeviceKind device = decay_.view().device.kind;
  const std::int64_t checkpoints_bytes = d_inner_ * scan_checkpoint_rows<T>(d_state_, device) *
                                         std::int64_t{sizeof(float)} / scan_checkpoint_tokens(device);
  return activations * std::int64_t{sizeof(T)} + checkpoints_bytes;
}

/// The scan's states before its segments.
template <class T>
std::int64_t Mamba1<T>::trail_floats(std::int64_t lanes, std::int64_t tokens, Context& context) const {
  return scan_segment_count(lanes, tokens, d_inner_, context) * lanes * d_state_ * d_inner_;
}

/// As the trail has them, or room for them.
template <class T>
View<float, 4> Mamba1<T>::segment_states(const Trail& trail, std::int64_t lanes, std::int64_t tokens,
                                         Context& context) const {
  const std::int64_t floats = trail_floats(lanes, tokens, context);
  if (floats == 0) return {};
  const auto states = trail.floats.empty() ? context.scratch.take<float, 1>({floats}) : trail.floats;
  return {states.data, {floats / (lanes * d_state_ * d_inner_), lanes, d_state_, d_inner_}, context.device};
}

template <class T>
View<float, 3> Mamba1<T>::conv_state(View<float, 2> state) const {
  return {state.data, {state.shape[0], d_conv_ - 1, d_inner_}, {state.stride[0], d_inner_, 1}, state.device};
}

template <class T>
View<float, 3> Mamba1<T>::scan_state(View<float, 2> state) const {
  return {state.data + (d_conv_ - 1) * d_inner_,
          {state.shape[0], d_state_, d_inner_},
          {state.stride[0], d_inner_, 1},
          state.device};
}

template <class T>
auto Mamba1<T>::take_activations(std::int64_t lanes, std::int64_t tokens, const MixerOutput<T>& output,
                                 bool for_backward, Arena& arena) const -> Activations {
  const auto* unprojected = std::get_if<Unprojected<T>>(&output);
  Activations a;
  a.u = arena.take<T, 3>({lanes, tokens, d_inner_});
  a.x_dbl = arena.take<T, 3>({lanes, tokens, dt_rank_ + 2 * d_state_});
  a.dt = arena.take<T, 3>({lanes, tokens, d_inner_});
  a.y = unprojected != nullptr ? unprojected->rows : arena.take<T, 3>({lanes, tokens, d_inner_});
  if (for_backward) {
    a.checkpoints = arena.take<float, 4>({scan_checkpoint_count(tokens, arena.device().kind), lanes,
                                          scan_checkpoint_rows<T>(d_state_, arena.device().kind), d_inner_});
    a.state = arena.take<float, 2>({lanes, state_floats()});
  }
  return a;
}

template <class T>
CausalConvInput<T> Mamba1<T>::conv_input(Direction direction, View<const T, 3> projected,
                                         View<const float, 3> state,
                                         View<const std::int64_t, 1> valid) const {
  return {.x = projected.columns(0, d_inner_),
          .weight = conv_weight_,
          .bias = conv_bias_,
          .state = state,
          .valid = valid,
          .direction = direction};
}

template <class T>
SelectiveScanInput<T> Mamba1<T>::scan_input(Direction direction, View<const T, 3> z, const Activations& a,
                                            View<const float, 3> state,
                                            View<const std::int64_t, 1> valid) const {
  return {.u = a.u,
          .dt = a.dt,
          .b = a.x_dbl.columns(dt_rank_, d_state_),
          .c = a.x_dbl.columns(dt_rank_ + d_state_, d_state_),
          .z = z,
          .decay = decay_.view(),
          .d = d_,
          .state = state,
          .valid = valid,
          .direction = direction};
}

template <class T>
void Mamba1<T>::project(Direction, View<const T, 3> x, View<T, 3> projected, Context& context) const {
  linear_forward<T, T>(rows(x), projections_->in_proj_, rows(projected), context);
}

template <class T>
auto Mamba1<T>::forward(Direction direction, View<const T, 3> projected, View<float, 2> state,
                        View<const std::int64_t, 1> valid, const MixerOutput<T>& output, Arena* keep,
                        const Trail& trail, Context& context) const -> std::unique_ptr<Saved> {
  const Arena::Scope scope(context.scratch);
  const bool for_backward = keep != nullptr;
  Activations a = take_activations(projected.shape[0], projected.shape[1], output, for_backward,
                                   keep ? *keep : context.scratch);
  if (for_backward) copy(state, a.state, context);
  convolve(direction, projected, a, state, valid, context);
  scan_and_project(direction, z_of(projected), a, state, valid, output, trail, context);
  return for_backward ? std::make_unique<Activations>(std::move(a)) : nullptr;
}

template <class T>
auto Mamba1<T>::project_and_forward(Direction direction, View<const T, 3> x, View<T, 3> projected,
                                    View<float, 2> state, View<const std::int64_t, 1> valid,
                                    const MixerOutput<T>& output, Arena* keep, const Trail& trail,
                                    Context& context) const -> std::unique_ptr<Saved> {
  const Arena::Scope scope(context.scratch);
  const bool for_backward = keep != nullptr, keeps_projected = !projected.empty();
  const auto [lanes, tokens, _] = x.shape;
  Activations a = take_activations(lanes, tokens, output, for_backward, keep ? *keep : context.scratch);
  if (for_backward) copy(state, a.state, context);
  std::optional<Arena::Scope> scope_of_z(context.scratch);
  View<T, 3> z = keeps_projected ? z_of(projected) : context.scratch.take<T, 3>({lanes, tokens, d_inner_});
  const LinearConvInput<T> input{.input = x,
                                 .weight = projections_->in_proj_,
                                 .conv_weight = conv_weight_,
                                 .conv_bias = conv_bias_,
                                 .state = conv_state(state),
                                 .valid = valid,
                                 .direction = direction};
  const LinearConvOutput<T> convolved{.u = a.u,
                                      .z = z,
                                      .state = conv_state(state),
                                      .x = keeps_projected ? projected.columns(0, d_inner_) : View<T, 3>{}};
  if (!linear_conv_forward<T>(input, convolved, context)) {
    scope_of_z.reset();
    if (!keeps_projected) projected = context.scratch.take<T, 3>({lanes, tokens, projected_width()});
    z = z_of(projected);
    project(direction, x, projected, context);
    convolve(direction, projected, a, state, valid, context);
  }
  scan_and_project(direction, z, a, state, valid, output, trail, context);
  return for_backward ? std::make_unique<Activations>(std::move(a)) : nullptr;
}

template <class T>
void Mamba1<T>::convolve(Direction direction, View<const T, 3> projected, const Activations& a,
                         View<float, 2> state, View<const std::int64_t, 1> valid, Context& context) const {
  causal_conv_forward<T>(conv_input(direction, projected, conv_state(state), valid), a.u, conv_state(state),
                         context);
}

template <class T>
void Mamba1<T>::scan_and_project(Direction direction, View<const T, 3> z, const Activations& a,
                                 View<float, 2> state, View<const std::int64_t, 1> valid,
                                 const MixerOutput<T>& output, const Trail& trail, Context& context) const {
  const Arena::Scope scope(context.scratch);
  SelectiveScanInput<T> scan = scan_input(direction, z, a, scan_state(state), valid);
  const auto* unprojected = std::get_if<Unprojected<T>>(&output);
  SelectiveScanOutput<T> scanned{.out = a.y,
                                 .state = scan_state(state),
                                 .checkpoints = a.checkpoints,
                                 .accumulate = unprojected != nullptr && unprojected->accumulate};
  const View<float, 4> segment_states = this->segment_states(trail, z.shape[0], z.shape[1], context);
  const bool has_states = selection_forward<T>(
      {.u = a.u,
       .x_proj = x_proj_,
       .dt_proj = dt_proj_,
       .dt_bias = dt_proj_bias_,
       .decay = decay_.view(),
       .state = scan_state(state),
       .valid = valid,
       .direction = direction},
      {.x_dbl = a.x_dbl, .dt = a.dt, .segment_states = trail.walked ? View<float, 4>{} : segment_states},
      context);
  if (trail.walked || has_states) {
    scan.segment_states = segment_states;
  } else {
    scanned.segment_states = segment_states;
  }
  selective_scan_forward<T>(scan, scanned, context);
  project_output(direction, a.y, output, context);
}

template <class T>
void Mamba1<T>::project_output(Direction, View<const T, 3> inner, const MixerOutput<T>& output,
                               Context& context) const {
  const PackedLinear<T>& out_proj = projections_->out_proj_;
  if (const auto* y = std::get_if<View<T, 3>>(&output)) {
    linear_forward<T, T>(rows(inner), out_proj, rows(*y), context);
  } else if (const auto* next = std::get_if<ResidualNorm<T>>(&output)) {
    linear_norm_forward<T>(rows(inner), out_proj, *next, context);
  }
}

template <class T>
void Mamba1<T>::backward(Direction direction, View<const T, 3> projected, const Saved& saved,
                         View<const T, 3> d_y, View<const std::int64_t, 1> valid, View<float, 2> d_state,
                         View<T, 3> d_projected, ParameterStore& gradients, Context& context) const {
  const auto& a = static_cast<const Activations&>(saved);
  const Arena::Scope scope(context.scratch);
  const auto gradient = [&](const char* name) { return gradients.matrix(prefix_ + name); };
  const auto gradient_flat = [&](const char* name) { return gradients.flat(prefix_ + name); };
  const auto d_u = context.scratch.take<T, 3>(a.u.shape);
  const auto d_x_dbl = context.scratch.take<T, 3>(a.x_dbl.shape);
  const auto d_delta = context.scratch.take<T, 3>(a.dt.shape);
  const auto d_gated = context.scratch.take<T, 3>(a.y.shape);

  linear_backward_input<T>(rows(d_y), projections_->out_proj_, rows(d_gated), GradientMode::overwrite,
                           context);
  linear_backward_weight<T>(rows(d_y), rows<const T>(a.y),
                            gradients.matrix(projections_->prefix_ + "out_proj.weight"), context);

  const SelectiveScanGradient<T> scan{.d_out = d_gated,
                                      .checkpoints = a.checkpoints,
                                      .d_u = d_u,
                                      .d_delta = d_delta,
                                      .d_b = d_x_dbl.columns(dt_rank_, d_state_),
                                      .d_c = d_x_dbl.columns(dt_rank_ + d_state_, d_state_),
                                      .d_z = d_projected.columns(d_inner_, d_inner_),
                                      .d_a_log = gradient("A_log"),
                                      .d_d = gradient_flat("D"),
                                      .d_delta_bias = gradient_flat("dt_proj.bias"),
                                      .d_state = scan_state(d_state)};
  selective_scan_backward<T>(scan_input(direction, z_of(projected), a, scan_state(a.state), valid), scan,
                             context);

  const auto d_rank = rows(d_x_dbl).columns(0, dt_rank_);
  linear_backward_input<T>(rows<const T>(d_delta), dt_proj_, d_rank, GradientMode::overwrite, context);
  linear_backward_weight<T>(rows<const T>(d_delta), rows<const T>(a.x_dbl).columns(0, dt_rank_),
                            gradient("dt_proj.weight"), context);
  linear_backward_input<T>(rows<const T>(d_x_dbl), x_proj_, rows(d_u), GradientMode::accumulate, context);
  linear_backward_weight<T>(rows<const T>(d_x_dbl), rows<const T>(a.u), gradient("x_proj.weight"), context);

  const CausalConvGradient<T> conv{.d_out = d_u,
                                   .d_x = d_projected.columns(0, d_inner_),
                                   .d_weight = gradient("conv1d.weight"),
                                   .d_bias = gradient_flat("conv1d.bias"),
                                   .d_state = conv_state(d_state)};
  causal_conv_backward<T>(conv_input(direction, projected, conv_state(a.state), valid), conv, context);
}

template <class T>
void Mamba1<T>::project_backward(Direction, View<const T, 3> x, View<const T, 3> d_projected, View<T, 3> d_x,
                                 ParameterStore& gradients, Context& context) const {
  linear_backward_input<T>(rows(d_projected), projections_->in_proj_, rows(d_x), GradientMode::overwrite,
                           context);
  linear_backward_weight<T>(rows(d_projected), rows(x),
                            gradients.matrix(projections_->prefix_ + "in_proj.weight"), context);
}

template class Mamba1<float>;
template class Mamba1<bfloat16>;

}  // namespace longstrand
