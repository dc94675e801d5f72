// The CUDA backend's speed: its kernels and whole models beside the official implementations, which were
// measured on the same kind of machine (H200; mamba_ssm 2.3.2, causal-conv1d 1.6.1, PyTorch 2.11), and beside
// the share of time that reading and writing their operands once would take. One line a case.
//
//   bench_cuda [FILTER]                                  cases whose name contains FILTER
//   bench_cuda inference|training D_MODEL LAYERS LANES TOKENS
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

#include "kernels/causal_conv.hpp"
#include "kernels/linear.hpp"
#include "kernels/linear_conv.hpp"
#include "kernels/rms_norm.hpp"
#include "kernels/selection.hpp"
#include "kernels/selective_scan.hpp"
#include "kernels/transfer.hpp"
#include "src/decoder.hpp"
#include "src/inference.hpp"
#include "src/masking.hpp"
#include "src/random.hpp"
#include "src/trainer.hpp"
#include "src/vocabulary.hpp"

namespace longstrand {
namespace {

constexpr Device kGpu{DeviceKind::cuda, 0};
constexpr std::int64_t kStates = 16;

struct Goal {
  double official_ms = 0, bar_ms = 0, aim_ms = 0;
};

struct Measured {
  double ms = 0;
  std::size_t peak_bytes = 0;
};

std::string filter;

void print_header() {
  std::printf("%-44s %9s %9s %8s %8s %9s %8s\n", "case", "ms", "official", "bar", "aim", "floor ms", "GiB");
}

void report(const std::string& name, const Measured& measured, const Goal& goal, double bytes = 0) {
  constexpr double kBytesPerMs = 4.24e9;  // device copy on an H200, read plus written
  const auto text = [](double value, const char* format) {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, format, value);
    return value > 0 ? std::string(buffer) : std::string("-");
  };
  std::printf("%-44s %9.3f %9s %8s %8s %9s %8s%s\n", name.c_str(), measured.ms,
              text(goal.official_ms, "%.2f").c_str(), text(goal.bar_ms, "%.1f").c_str(),
              text(goal.aim_ms, "%.1f").c_str(), text(bytes / kBytesPerMs, "%.3f").c_str(),
              text(static_cast<double>(measured.peak_bytes) / (1 << 30), "%.2f").c_str(),
              goal.bar_ms > 0 && measured.ms > goal.bar_ms ? "  over the bar" : "");
  std::fflush(stdout);
}

bool wanted(const std::string& name) { return name.find(filter) != std::string::npos; }

/// Median of some calls, each waited for; as many as fit a second. Of a call that takes longer, the second
/// alone.
double median_ms(const std::function<void()>& call, const std::function<void()>& wait) {
  const auto once = [&] {
    const auto begin = std::chrono::steady_clock::now();
    call();
    wait();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  };
  once();
  const double first_ms = once();
  constexpr double kLong_ms = 1000;
  if (first_ms > kLong_ms) return first_ms;
  std::vector<double> times;
  for (int i = 0; i < std::clamp(static_cast<int>(kLong_ms / first_ms), 3, 20); ++i) times.push_back(once());
  std::nth_element(times.begin(), times.begin() + static_cast<long>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

/// Random values on the GPU; the same few million over and over in a large array.
template <class T, int Rank>
Array<T, Rank> random_array(std::array<std::int64_t, Rank> shape, Context& context, double low = -1,
                            double high = 1) {
  Array<T, Rank> array(shape, kGpu);
  std::mt19937_64 random(1);
  std::vector<T> values(static_cast<std::size_t>(std::min<std::int64_t>(array.view().size(), 1 << 22)));
  for (T& value : values) value = T(static_cast<float>(uniform(random, low, high)));
  const View<T, Rank> view = array.view();
  for (std::int64_t begin = 0; begin < view.size(); begin += std::ssize(values)) {
    const std::int64_t count = std::min<std::int64_t>(view.size() - begin, std::ssize(values));
    copy(View<const T, 1>(values.data(), {count}), View<T, 1>(view.data + begin, {count}, kGpu), context);
  }
  return array;
}

struct ScanBench {
  using T = bfloat16;
  Context context{kGpu};
  Array<T, 3> u, dt, xz, x_dbl, out, d_out, d_u, d_delta, d_xz, d_x_dbl;
  PackedLinear<T> dt_proj;
  Array<float, 2> decay, d_a_log;
  Array<float, 1> d, bias, d_d, d_bias;
  Array<float, 3> state, d_state;
  Array<float, 4> checkpoints;
  Array<std::int64_t, 1> valid;
  std::int64_t channels, dt_rank;

  ScanBench(std::int64_t lanes, std::int64_t tokens, std::int64_t d_inner)
      : u(random_array<T, 3>({lanes, tokens, d_inner}, context)),
        dt({lanes, tokens, d_inner}, kGpu),
        xz(random_array<T, 3>({lanes, tokens, 2 * d_inner}, context)),
        x_dbl(random_array<T, 3>({lanes, tokens, d_inner / 32 + 2 * kStates}, context)),
        out({lanes, tokens, d_inner}, kGpu),
        d_out(random_array<T, 3>({lanes, tokens, d_inner}, context)),
        d_u({lanes, tokens, d_inner}, kGpu),
        d_delta({lanes, tokens, d_inner}, kGpu),
        d_xz({lanes, tokens, 2 * d_inner}, kGpu),
        d_x_dbl(x_dbl.view().shape, kGpu),
        decay({kStates, d_inner}, kGpu),
        d_a_log({d_inner, kStates}, kGpu),
        d(random_array<float, 1>({d_inner}, context)),
        bias(random_array<float, 1>({d_inner}, context, -6.9, -2.2)),  // dt of 0.001 to 0.1
        d_d({d_inner}, kGpu),
        d_bias({d_inner}, kGpu),
        state({lanes, kStates, d_inner}, kGpu),
        d_state({lanes, kStates, d_inner}, kGpu),
        checkpoints({scan_checkpoint_count(tokens, DeviceKind::cuda), lanes,
                     scan_checkpoint_rows<T>(kStates, DeviceKind::cuda), d_inner},
                    kGpu),
        valid({lanes}, kGpu),
        channels(d_inner),
        dt_rank(d_inner / 32) {
    const double spread = std::sqrt(3 / static_cast<double>(dt_rank));  // as if delta were from -1 to 1
    dt_proj.pack(random_array<float, 2>({d_inner, dt_rank}, context, -spread, spread).view(), false, context);
    fill(valid.view(), tokens, context);
    // As a model begins: A = -1, -2, ... How fast states decay decides how fast the scan is.
    for (std::int64_t n = 0; n < kStates; ++n) {
      fill(decay.view().slice(n, 1), static_cast<float>(-std::numbers::log2e * static_cast<double>(n + 1)),
           context);
    }
  }

  SelectiveScanInput<T> input() {
    return {.u = u.view(),
            .dt = dt.view(),
            .b = x_dbl.view().columns(dt_rank, kStates),
            .c = x_dbl.view().columns(dt_rank + kStates, kStates),
            .z = xz.view().columns(channels, channels),
            .decay = decay.view(),
            .d = d.view(),
            .state = state.view(),
            .valid = valid.view()};
  }
  /// From the low-rank factor of dt on.
  void forward(bool keep) {
    linear_softplus_forward<T>(rows<const T>(x_dbl.view()).columns(0, dt_rank), dt_proj, bias.view(),
                               rows(dt.view()), context);
    selective_scan_forward<T>(input(),
                              {.out = out.view(),
                               .state = state.view(),
                               .checkpoints = keep ? checkpoints.view() : View<float, 4>{}},
                              context);
  }
  void backward() {
    selective_scan_backward<T>(input(),
                               {.d_out = d_out.view(),
                                .checkpoints = checkpoints.view(),
                                .d_u = d_u.view(),
                                .d_delta = d_delta.view(),
                                .d_b = d_x_dbl.view().columns(dt_rank, kStates),
                                .d_c = d_x_dbl.view().columns(dt_rank + kStates, kStates),
                                .d_z = d_xz.view().columns(channels, channels),
                                .d_a_log = d_a_log.view(),
                                .d_d = d_d.view(),
                                .d_delta_bias = d_bias.view(),
                                .d_state = d_state.view()},
                               context);
  }
};

void bench_scan(std::int64_t lanes, std::int64_t tokens, std::int64_t channels, Goal forward, Goal both) {
  const std::string shape =
      "d_inner " + std::to_string(channels) + ", " + std::to_string(lanes) + " x " + std::to_string(tokens);
  if (!wanted("scan " + shape)) return;
  ScanBench bench(lanes, tokens, channels);
  const auto wait = [&] { bench.context.synchronize(); };
  const double elements = static_cast<double>(lanes * tokens * channels);
  report("scan forward, " + shape, {median_ms([&] { bench.forward(false); }, wait), 0}, forward,
         elements * 8);
  const auto step = [&] {
    bench.forward(true);
    bench.backward();
  };
  report("scan forward + backward, " + shape, {median_ms(step, wait), 0}, both, elements * (8 + 16));
}

void bench_conv(std::int64_t tokens, std::int64_t channels) {
  if (!wanted("conv")) return;
  using T = bfloat16;
  Context context(kGpu);
  const auto xz = random_array<T, 3>({1, tokens, 2 * channels}, context);
  const auto weight = random_array<float, 2>({channels, 4}, context);
  const auto bias = random_array<float, 1>({channels}, context);
  const Array<float, 3> state({1, 3, channels}, kGpu), d_state({1, 3, channels}, kGpu);
  const Array<std::int64_t, 1> valid({1}, kGpu);
  const auto d_out = random_array<T, 3>({1, tokens, channels}, context);
  const Array<T, 3> out({1, tokens, channels}, kGpu), d_x({1, tokens, channels}, kGpu);
  const Array<float, 2> d_weight({channels, 4}, kGpu);
  const Array<float, 1> d_bias({channels}, kGpu);
  fill(valid.view(), tokens, context);
  const CausalConvInput<T> input{.x = xz.view().columns(0, channels),
                                 .weight = weight.view(),
                                 .bias = bias.view(),
                                 .state = state.view(),
                                 .valid = valid.view()};
  const auto forward = [&] { causal_conv_forward<T>(input, out.view(), state.view(), context); };
  const auto both = [&] {
    forward();
    causal_conv_backward<T>(input,
                            {.d_out = d_out.view(),
                             .d_x = d_x.view(),
                             .d_weight = d_weight.view(),
                             .d_bias = d_bias.view(),
                             .d_state = d_state.view()},
                            context);
  };
  const auto wait = [&] { context.synchronize(); };
  const std::string shape = "d_inner " + std::to_string(channels) + ", " + std::to_string(tokens);
  const double bytes = static_cast<double>(tokens * channels) * sizeof(T);
  report("conv forward, " + shape, {median_ms(forward, wait), 0}, {1.10, 0, 0}, 2 * bytes);
  report("conv forward + backward, " + shape, {median_ms(both, wait), 0}, {2.28, 0, 0}, 5 * bytes);
}

void bench_norm(std::int64_t tokens, std::int64_t width) {
  if (!wanted("norm")) return;
  using T = bfloat16;
  Context context(kGpu);
  const auto residual = random_array<float, 2>({tokens, width}, context);
  const auto hidden = random_array<T, 2>({tokens, width}, context);
  const auto weight = random_array<float, 1>({width}, context);
  const auto d_residual = random_array<float, 2>({tokens, width}, context);
  const Array<T, 2> out({tokens, width}, kGpu), d_hidden({tokens, width}, kGpu);
  const Array<float, 1> d_weight({width}, kGpu);
  const auto wait = [&] { context.synchronize(); };
  const double elements = static_cast<double>(tokens * width);
  const std::string shape = std::to_string(width) + ", " + std::to_string(tokens);
  report("norm forward, " + shape,
         {median_ms(
              [&] {
                rms_norm_forward<T>(residual.view(), View<const T, 2>(hidden.view()), weight.view(), 1e-5F,
                                    {residual.view(), out.view()}, context);
              },
              wait),
          0},
         {}, elements * 12);
  report("norm backward, " + shape,
         {median_ms(
              [&] {
                rms_norm_backward<T>(residual.view(), weight.view(), 1e-5F,
                                     {.d_out = hidden.view(),
                                      .d_residual = d_residual.view(),
                                      .d_hidden = d_hidden.view(),
                                      .d_weight = d_weight.view()},
                                     context);
              },
              wait),
          0},
         {}, elements * 16);
}

/// What a model does for a scan before its last pass.
void bench_selection(std::int64_t lanes, std::int64_t tokens, std::int64_t channels) {
  const std::string name = "selection, d_inner " + std::to_string(channels) + ", " + std::to_string(lanes) +
                           " x " + std::to_string(tokens);
  if (!wanted(name)) return;
  using T = bfloat16;
  ScanBench bench(lanes, tokens, channels);
  Context& context = bench.context;
  const double spread = std::sqrt(3 / static_cast<double>(channels));
  PackedLinear<T> x_proj;
  x_proj.pack(
      random_array<float, 2>({bench.dt_rank + 2 * kStates, channels}, context, -spread, spread).view(), false,
      context);
  const Array<float, 4> states(
      {scan_segment_count(lanes, tokens, channels, context), lanes, kStates, channels}, kGpu);
  const SelectionInput<T> input{.u = bench.u.view(),
                                .x_proj = x_proj,
                                .dt_proj = bench.dt_proj,
                                .dt_bias = bench.bias.view(),
                                .decay = bench.decay.view(),
                                .state = bench.state.view(),
                                .valid = bench.valid.view()};
  SelectionOutput<T> output{.x_dbl = bench.x_dbl.view(), .dt = bench.dt.view()};
  const auto measure = [&](const std::string& what) {
    const double ms =
        median_ms([&] { selection_forward<T>(input, output, context); }, [&] { context.synchronize(); });
    const std::int64_t width = 2 * channels + bench.dt_rank + 2 * kStates;
    report(what, {ms, 0}, {}, static_cast<double>(lanes * tokens * width) * sizeof(T));
  };
  measure(name);
  output.segment_states = states.view();
  if (selection_forward<T>(input, output, context)) measure(name + ", states");
}

/// in_proj and the convolution.
void bench_linear_conv(std::int64_t lanes, std::int64_t tokens, std::int64_t in, std::int64_t channels) {
  const std::string name = "linear conv " + std::to_string(in) + " -> " + std::to_string(channels) + ", " +
                           std::to_string(lanes) + " x " + std::to_string(tokens);
  if (!wanted(name)) return;
  using T = bfloat16;
  Context context(kGpu);
  const auto x = random_array<T, 3>({lanes, tokens, in}, context);
  const auto weight = random_array<float, 2>({2 * channels, in}, context);
  const auto conv_weight = random_array<float, 2>({channels, 4}, context);
  const auto bias = random_array<float, 1>({channels}, context);
  const Array<float, 3> state({lanes, 3, channels}, kGpu);
  const Array<std::int64_t, 1> valid({lanes}, kGpu);
  const Array<T, 3> u({lanes, tokens, channels}, kGpu), xz({lanes, tokens, 2 * channels}, kGpu);
  fill(valid.view(), tokens, context);
  PackedLinear<T> packed;
  packed.pack(weight.view(), false, context);
  const LinearConvInput<T> input{.input = x.view(),
                                 .weight = packed,
                                 .conv_weight = conv_weight.view(),
                                 .conv_bias = bias.view(),
                                 .state = state.view(),
                                 .valid = valid.view()};
  const LinearConvOutput<T> output{
      .u = u.view(), .z = xz.view().columns(channels, channels), .state = state.view()};
  if (!linear_conv_forward<T>(input, output, context)) return;
  const double ms =
      median_ms([&] { linear_conv_forward<T>(input, output, context); }, [&] { context.synchronize(); });
  report(name, {ms, 0}, {}, static_cast<double>(lanes * tokens * (in + 2 * channels)) * sizeof(T));
}

/// out_proj, its sum with the residual and the norm that follows.
void bench_linear_norm(std::int64_t tokens, std::int64_t in, std::int64_t out) {
  if (!wanted("linear norm")) return;
  using T = bfloat16;
  Context context(kGpu);
  const auto x = random_array<T, 2>({tokens, in}, context);
  const auto residual = random_array<float, 2>({tokens, out}, context);
  const auto weight = random_array<float, 2>({out, in}, context);
  const auto norm_weight = random_array<float, 1>({out}, context);
  const Array<T, 2> normed({tokens, out}, kGpu);
  PackedLinear<T> packed;
  packed.pack(weight.view(), false, context);
  const double ms = median_ms(
      [&] {
        linear_norm_forward<T>(x.view(), packed, {residual.view(), norm_weight.view(), 1e-5F, normed.view()},
                               context);
      },
      [&] { context.synchronize(); });
  const std::string shape = std::to_string(in) + " -> " + std::to_string(out) + ", " + std::to_string(tokens);
  report("linear norm " + shape, {ms, 0}, {}, static_cast<double>(tokens * (2 * in + 10 * out)));
}

void bench_linear_softplus(std::int64_t tokens, std::int64_t in, std::int64_t out) {
  if (!wanted("linear softplus")) return;
  using T = bfloat16;
  Context context(kGpu);
  const auto x = random_array<T, 2>({tokens, in + 2 * kStates}, context);
  const auto bias = random_array<float, 1>({out}, context, -6.9, -2.2);
  const Array<T, 2> y({tokens, out}, kGpu);
  PackedLinear<T> packed;
  packed.pack(random_array<float, 2>({out, in}, context).view(), /*for_backward=*/false, context);
  const auto run = [&] {
    linear_softplus_forward<T>(x.view().columns(0, in), packed, bias.view(), y.view(), context);
  };
  report("linear softplus " + std::to_string(in) + " -> " + std::to_string(out),
         {median_ms(run, [&] { context.synchronize(); }), 0}, {},
         static_cast<double>(tokens * (in + out)) * 2);
}

void bench_linear(const char* what, std::int64_t tokens, std::int64_t in, std::int64_t out,
                  double official_ms) {
  if (!wanted(std::string("linear ") + what)) return;
  using T = bfloat16;
  Context context(kGpu);
  const auto x = random_array<T, 2>({tokens, in}, context), d_y = random_array<T, 2>({tokens, out}, context);
  const auto weight = random_array<float, 2>({out, in}, context);
  const Array<T, 2> y({tokens, out}, kGpu), d_x({tokens, in}, kGpu);
  const Array<float, 2> d_weight({out, in}, kGpu);
  PackedLinear<T> packed;
  packed.pack(weight.view(), /*for_backward=*/true, context);
  const auto wait = [&] { context.synchronize(); };
  const std::string shape =
      std::string("linear ") + what + " " + std::to_string(in) + " -> " + std::to_string(out);
  const double bytes = static_cast<double>(tokens * (in + out)) * sizeof(T);
  report(shape, {median_ms([&] { linear_forward<T, T>(x.view(), packed, y.view(), context); }, wait), 0},
         {official_ms, 0, 0}, bytes);
  report(shape + ", d_x",
         {median_ms(
              [&] {
                linear_backward_input<T>(d_y.view(), packed, d_x.view(), GradientMode::overwrite, context);
              },
              wait),
          0},
         {}, bytes);
  report(shape + ", d_weight",
         {median_ms([&] { linear_backward_weight<T>(d_y.view(), x.view(), d_weight.view(), context); }, wait),
          0},
         {}, bytes);
}

std::vector<std::uint8_t> random_dna(std::int64_t length) {
  std::mt19937_64 random(1);
  std::vector<std::uint8_t> tokens(static_cast<std::size_t>(length));
  for (std::uint8_t& token : tokens) token = static_cast<std::uint8_t>(7 + (random() >> 62));  // A, C, G, T
  return tokens;
}

enum class Kind { mamba, caduceus_ph, caduceus_ps };

Model make_model(std::int64_t d_model, std::int64_t layers, Kind kind = Kind::mamba) {
  ModelConfig config;
  config.d_model = d_model;
  config.n_layer = layers;
  if (kind != Kind::mamba) config.mixer = kBidirectionalMixer;
  config.equivariant = kind == Kind::caduceus_ps;
  return Model(config, 1);
}

const ExecutionOptions kExecution{.device = kGpu, .precision = Precision::bf16};

std::string model_shape(std::int64_t d_model, std::int64_t layers, std::int64_t lanes, std::int64_t tokens,
                        Kind kind) {
  const char* const kinds[] = {"", "Caduceus-Ph ", "Caduceus-PS "};
  return kinds[static_cast<int>(kind)] + std::to_string(d_model) + " x " + std::to_string(layers) + ", " +
         std::to_string(lanes) + " x " + std::to_string(tokens);
}

/// Log-likelihood of every lane: the whole model, its head and the loss. Of bidirectional models, that of
/// every seventh token given the others.
void bench_inference(std::int64_t d_model, std::int64_t layers, std::int64_t lanes, std::int64_t tokens,
                     Goal goal, Kind kind = Kind::mamba) {
  const std::string name = "inference " + model_shape(d_model, layers, lanes, tokens, kind);
  if (!wanted(name)) return;
  const Model model = make_model(d_model, layers, kind);
  const bool causal = kind == Kind::mamba;
  Inference inference(model, kExecution,
                      {.readout = causal ? Readout::log_likelihood : Readout::masked_log_likelihood});
  std::vector<std::uint8_t> dna = random_dna(tokens), targets(dna.size(), kNoTargetToken);
  if (!causal) {
    for (std::size_t i = 0; i < dna.size(); i += 7) targets[i] = std::exchange(dna[i], kMaskToken);
  }
  const auto run = [&] {
    std::int64_t position = 0;
    const std::int64_t chunk = std::max<std::int64_t>(inference.preferred_chunk_tokens() / lanes, 1);
    inference.run(
        [&](TokenBatch& batch) {
          const std::int64_t count = std::min(chunk, tokens - position);
          if (count <= 0) return false;
          batch.lanes = lanes;
          batch.length = count;
          const auto fill_lanes = [&](const std::vector<std::uint8_t>& from, std::vector<std::uint8_t>& to) {
            to.clear();
            for (std::int64_t lane = 0; lane < lanes; ++lane) {
              to.insert(to.end(), from.begin() + position, from.begin() + position + count);
            }
          };
          fill_lanes(dna, batch.tokens);
          if (!causal) fill_lanes(targets, batch.targets);
          const auto all = static_cast<std::size_t>(lanes);
          batch.valid.assign(all, count);
          batch.starts.assign(all, position == 0);
          position += count;
          batch.ends.assign(all, position == tokens);
          return true;
        },
        [](const ChunkResult&) {});
  };
  const double ms = median_ms(run, [] {});
  report(name, {ms, inference.peak_bytes()}, goal);
}

void bench_training(std::int64_t d_model, std::int64_t layers, std::int64_t lanes, std::int64_t tokens,
                    Goal goal, Kind kind = Kind::mamba) {
  const std::string name = "training " + model_shape(d_model, layers, lanes, tokens, kind);
  if (!wanted(name)) return;
  Model model = make_model(d_model, layers, kind);
  const bool causal = kind == Kind::mamba;
  Trainer trainer(model, kExecution, {.objective = causal ? Objective::next_token : Objective::masked_token});
  const std::vector<std::uint8_t> dna = random_dna(tokens);
  TrainingSequence sequence{.length = tokens, .read = [&](std::int64_t begin, std::span<std::uint8_t> out) {
                              std::copy_n(dna.begin() + begin, out.size(), out.begin());
                            }};
  if (!causal) sequence = masked(std::move(sequence), {}, 1);
  const std::vector<TrainingSequence> batch(static_cast<std::size_t>(lanes), sequence);
  const double ms = median_ms([&] { trainer.step(batch, 1e-4); }, [] {});
  report(name, {ms, trainer.peak_bytes()}, goal);
}

/// One token a lane a step, the logits on the host.
void bench_decode(std::int64_t d_model, std::int64_t layers, std::int64_t lanes, double official,
                  double bar) {
  const std::string name = "decode, " + std::to_string(d_model) + " x " + std::to_string(layers) +
                           ", batch " + std::to_string(lanes);
  if (!wanted(name)) return;
  const Model model = make_model(d_model, layers);
  Decoder decoder(model, kExecution, lanes);
  const std::vector<std::uint8_t> tokens = random_dna(lanes);
  constexpr int kSteps = 200;
  const double ms = median_ms(
      [&] {
        for (int i = 0; i < kSteps; ++i) decoder.step(tokens);
      },
      [] {});
  const double tokens_per_second = static_cast<double>(kSteps * lanes) / ms * 1e3;
  std::printf("%-44s %9.0f tokens/s, official %.0f", name.c_str(), tokens_per_second, official);
  if (bar > 0) std::printf(", bar %.0f%s", bar, tokens_per_second < bar ? "  below the bar" : "");
  std::printf("\n");
  std::fflush(stdout);
}

void run_all() {
  constexpr std::int64_t kMi = 1 << 20;
  print_header();
  bench_scan(1, kMi, 512, {11.7, 3.9, 2.4}, {72.3, 20, 12});
  bench_scan(1, kMi, 128, {10.3, 1.2, 0.7}, {33.9, 6, 3.5});
  bench_scan(16, 8192, 512, {}, {});
  bench_selection(1, kMi, 512);
  bench_selection(16, 8192, 512);
  bench_selection(1, kMi, 256);
  bench_conv(kMi, 512);
  bench_norm(kMi, 256);
  bench_linear("in_proj", kMi, 256, 1024, 0.95);
  bench_linear("x_proj", kMi, 512, 48, 0.29);
  bench_linear("dt_proj", kMi, 16, 512, 0);
  bench_linear_softplus(kMi, 16, 512);
  bench_linear_conv(1, kMi, 256, 512);
  bench_linear_conv(16, 8192, 256, 512);
  bench_linear_conv(1, kMi, 128, 256);
  bench_linear_norm(kMi, 512, 256);
  bench_linear_norm(kMi / 8, 512, 256);
  bench_linear_norm(kMi, 256, 128);
  bench_linear("out_proj", kMi, 512, 256, 0.45);
  bench_inference(128, 4, 1, kMi, {54.6, 14, 8});
  bench_inference(256, 8, 1, kMi, {129.5, 50, 32});
  bench_inference(256, 8, 16, 8192, {15.8, 6.5, 4.2});
  bench_inference(768, 24, 1, kMi / 8, {153.5, 90, 65});
  bench_training(128, 4, 1, kMi, {204, 60, 35});
  bench_training(256, 8, 1, kMi, {754, 280, 170});
  bench_training(256, 8, 16, 8192, {72.7, 32, 20});
  bench_training(768, 24, 1, kMi / 8, {653, 420, 280});
  bench_training(256, 8, 1, 4 * kMi, {});
  bench_training(256, 8, 1, 64 * kMi, {});
  bench_inference(256, 16, 1, kMi / 8, {67.3, 25, 0}, Kind::caduceus_ph);
  bench_inference(256, 16, 1, kMi / 8, {147, 50, 0}, Kind::caduceus_ps);
  bench_training(256, 16, 1, kMi / 8, {358, 150, 0}, Kind::caduceus_ph);
  bench_training(256, 16, 1, kMi / 8, {758, 300, 0}, Kind::caduceus_ps);
  bench_decode(256, 8, 1, 2186, 4000);
  bench_decode(256, 8, 64, 198000, 0);
  bench_decode(256, 8, 512, 594000, 800000);
}

}  // namespace
}  // namespace longstrand

int main(int argc, char** argv) {
  using namespace longstrand;
  const std::vector<std::string> words(argv + 1, argv + argc);
  try {
    if (words.size() == 5) {
      print_header();
      const auto number = [&](std::size_t i) { return std::stoll(words[i]); };
      const auto bench = words[0] == "training" ? bench_training : bench_inference;
      bench(number(1), number(2), number(3), number(4), {}, Kind::mamba);
    } else {
      if (!words.empty()) filter = words[0];
      run_all();
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_cuda: %s\n", error.what());
    return 1;
  }
}
