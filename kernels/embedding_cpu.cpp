#include "kernels/embedding_cpu.hpp"

#include "kernels/simd_targets.hpp"
//
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/embedding_cpu.cpp"
#include "hwy/foreach_target.h"
//
#include "kernels/simd_math-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace longstrand::HWY_NAMESPACE {
namespace {

void backward(View<const std::uint8_t, 2> tokens, View<const float, 3> d_out, View<float, 2> d_weight) {
  const auto [lanes, length, channels] = d_out.shape;
  for (std::int64_t lane = 0; lane < lanes; ++lane) {
    for (std::int64_t t = 0; t < length; ++t) {
      const float* from = d_out.at(lane, t);
      float* to = d_weight.at(*tokens.at(lane, t));
      for (std::int64_t d = 0; d < channels; d += kLanes) {
        const std::int64_t left = channels - d;
        store(hn::Add(load(to + d, left), load(from + d, left)), to + d, left);
      }
    }
  }
}

}  // namespace
}  // namespace longstrand::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longstrand::cpu {

HWY_EXPORT(backward);

void embedding_backward(View<const std::uint8_t, 2> tokens, View<const float, 3> d_out,
                        View<float, 2> d_weight) {
  HWY_DYNAMIC_DISPATCH(backward)(tokens, d_out, d_weight);
}

}  // namespace longstrand::cpu
#endif  // HWY_ONCE
