// The selective scan and the causal convolution on one thread, at the shapes of a layer of d_model 256. One
// JSON object a case. The floor of a case is the time of its multiply-adds alone, those of its exponentials
// included, at the rate at which this machine does independent ones, measured first.
#include <cstdio>
#include <type_traits>

#include "kernels/causal_conv.hpp"
#include "kernels/memory.hpp"
#include "kernels/selective_scan.hpp"
#include "kernels/simd_targets.hpp"
#include "tests/bench/median_time.hpp"
#include "tests/support/random.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/bench/bench_kernels.cpp"
#include "hwy/foreach_target.h"
//
#include "kernels/simd_math-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace longstrand::HWY_NAMESPACE {

/// Returns how many multiply-adds of single floats were done; `sums` keeps them from being left out.
std::int64_t multiply_add(float* sums) {
  constexpr int kIndependent = 12;
  constexpr int kRepeats = 10000;
  FloatVec sum[kIndependent];
  for (int i = 0; i < kIndependent; ++i) sum[i] = set(static_cast<float>(i));
  const FloatVec factor = set(sums[0]);
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    HWY_UNROLL(16)
    for (int i = 0; i < kIndependent; ++i) sum[i] = hn::MulAdd(sum[i], factor, factor);
  }
  for (int i = 0; i < kIndependent; ++i) store(hn::Add(sum[i], load(sums)), sums);
  return kIndependent * kRepeats * kLanes;
}

}  // namespace longstrand::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstrand {
namespace {

HWY_EXPORT(multiply_add);

constexpr std::int64_t kChannels = 512;
constexpr std::int64_t kStates = 16;
constexpr std::int64_t kTaps = 4;
constexpr std::int64_t kProjection = 16 + 2 * kStates;  // dt, B, C beside each other, as x_proj writes them

// Multiply-adds (a product or sum alone counts as one) of an exponential of base 2 and of a state's step.
constexpr double kExp2 = 5;
constexpr double kScanForward = kStates * (kExp2 + 4);        // dt A, dt u B, h, y
constexpr double kScanBackward = kScanForward + kStates * 8;  // g, d_C, d_B, sum g B, carry, 3 for dt and A
constexpr double kConvForward = kTaps + kExp2 + 2;            // and the SiLU's
constexpr double kConvBackward = kConvForward + 2 * kTaps + 4;

double multiply_adds_per_us() {
  float sums[64] = {};
  std::int64_t count = 0;
  const double us = median_us([&] { count = HWY_DYNAMIC_DISPATCH(multiply_add)(sums); });
  return static_cast<double>(count) / us;
}

template <class T, int Rank>
Array<T, Rank> random_array(std::array<std::int64_t, Rank> shape, double low, double high) {
  static Random random(11);
  Array<T, Rank> array(shape);
  const auto view = array.view();
  for (std::int64_t i = 0; i < view.size(); ++i) {
    view.data[i] = T(static_cast<float>(random.uniform(low, high)));
  }
  return array;
}

struct Report {
  std::int64_t tokens;
  const char* type;
  double rate;  // multiply-adds per us

  template <class Call>
  void operator()(const char* operation, const char* direction, double multiply_adds,
                  const Call& call) const {
    const double us = median_us(call) / static_cast<double>(tokens);
    const double floor_us = multiply_adds * static_cast<double>(kChannels) / rate;
    std::printf(R"({"case":"%s","direction":"%s","type":"%s","tokens":%lld,"channels":%lld,)"
                R"("us_per_token":%.3f,"floor_us_per_token":%.3f,"share_of_floor":%.2f})"
                "\n",
                operation, direction, type, static_cast<long long>(tokens), static_cast<long long>(kChannels),
                us, floor_us, floor_us / us);
  }
};

template <class T>
void measure_scan(const Report& report, Direction walk) {
  const std::int64_t tokens = report.tokens;
  const auto xz = random_array<T, 3>({1, tokens, 2 * kChannels}, -1, 1);
  const auto dt = random_array<T, 3>({1, tokens, kChannels}, 0.002, 0.05);
  const auto projection = random_array<T, 3>({1, tokens, kProjection}, -1, 1);
  const auto decay = random_array<float, 2>({kStates, kChannels}, -24, -1);
  const auto d = random_array<float, 1>({kChannels}, 0, 1);
  const auto d_out = random_array<T, 3>({1, tokens, kChannels}, -1, 1);
  const Array<float, 3> state({1, kStates, kChannels}), d_state({1, kStates, kChannels});
  const Array<std::int64_t, 1> valid({1});
  valid.view().data[0] = tokens;
  const std::int64_t segments = scan_checkpoint_count(tokens, DeviceKind::cpu);
  const Array<float, 4> checkpoints({segments, 1, kStates, kChannels});
  const Array<T, 3> out({1, tokens, kChannels}), d_u({1, tokens, kChannels}), d_delta({1, tokens, kChannels});
  const Array<T, 3> d_z({1, tokens, kChannels}), d_b({1, tokens, kStates}), d_c({1, tokens, kStates});
  const Array<float, 2> d_a_log({kChannels, kStates});
  const Array<float, 1> d_d({kChannels}), d_bias({kChannels});
  const SelectiveScanInput<T> input{.u = xz.view().columns(0, kChannels),
                                    .dt = dt.view(),
                                    .b = projection.view().columns(16, kStates),
                                    .c = projection.view().columns(16 + kStates, kStates),
                                    .z = xz.view().columns(kChannels, kChannels),
                                    .decay = decay.view(),
                                    .d = d.view(),
                                    .state = state.view(),
                                    .valid = valid.view(),
                                    .direction = walk};
  const SelectiveScanOutput<T> inference{.out = out.view(), .state = state.view()};
  const SelectiveScanOutput<T> training{
      .out = out.view(), .state = state.view(), .checkpoints = checkpoints.view()};
  const SelectiveScanGradient<T> gradient{.d_out = d_out.view(),
                                          .checkpoints = checkpoints.view(),
                                          .d_u = d_u.view(),
                                          .d_delta = d_delta.view(),
                                          .d_b = d_b.view(),
                                          .d_c = d_c.view(),
                                          .d_z = d_z.view(),
                                          .d_a_log = d_a_log.view(),
                                          .d_d = d_d.view(),
                                          .d_delta_bias = d_bias.view(),
                                          .d_state = d_state.view()};
  Context context;
  const char* name = walk == Direction::forward ? "selective_scan" : "selective_scan_reverse";
  report(name, "inference", kScanForward, [&] { selective_scan_forward<T>(input, inference, context); });
  report(name, "forward", kScanForward, [&] { selective_scan_forward<T>(input, training, context); });
  report(name, "backward", kScanBackward, [&] { selective_scan_backward<T>(input, gradient, context); });
}

template <class T>
void measure_conv(const Report& report, Direction walk) {
  const std::int64_t tokens = report.tokens;
  const auto xz = random_array<T, 3>({1, tokens, 2 * kChannels}, -1, 1);
  const auto weight = random_array<float, 2>({kChannels, kTaps}, -1, 1);
  const auto bias = random_array<float, 1>({kChannels}, -1, 1);
  const auto d_out = random_array<T, 3>({1, tokens, kChannels}, -1, 1);
  const Array<float, 3> state({1, kTaps - 1, kChannels}), d_state({1, kTaps - 1, kChannels});
  const Array<std::int64_t, 1> valid({1});
  valid.view().data[0] = tokens;
  const Array<T, 3> out({1, tokens, kChannels}), d_x({1, tokens, kChannels});
  const Array<float, 2> d_weight({kChannels, kTaps});
  const Array<float, 1> d_bias({kChannels});
  const CausalConvInput<T> input{.x = xz.view().columns(0, kChannels),
                                 .weight = weight.view(),
                                 .bias = bias.view(),
                                 .state = state.view(),
                                 .valid = valid.view(),
                                 .direction = walk};
  const CausalConvGradient<T> gradient{.d_out = d_out.view(),
                                       .d_x = d_x.view(),
                                       .d_weight = d_weight.view(),
                                       .d_bias = d_bias.view(),
                                       .d_state = d_state.view()};
  Context context;
  const char* name = walk == Direction::forward ? "causal_conv" : "causal_conv_reverse";
  report(name, "forward", kConvForward,
         [&] { causal_conv_forward<T>(input, out.view(), state.view(), context); });
  report(name, "backward", kConvBackward, [&] { causal_conv_backward<T>(input, gradient, context); });
}

}  // namespace
}  // namespace longstrand

int main() {
  const double rate = longstrand::multiply_adds_per_us();
  for (const std::int64_t tokens : {64, 256}) {
    for (const auto walk : {longstrand::Direction::forward, longstrand::Direction::reverse}) {
      longstrand::measure_scan<float>({tokens, "fp32", rate}, walk);
      longstrand::measure_scan<longstrand::bfloat16>({tokens, "bf16", rate}, walk);
      longstrand::measure_conv<float>({tokens, "fp32", rate}, walk);
      longstrand::measure_conv<longstrand::bfloat16>({tokens, "bf16", rate}, walk);
    }
  }
}
#endif  // HWY_ONCE
