// Functions by the special-function units.
#pragma once

namespace longstrand::cuda {

constexpr float kLog2E = 1.4426950408889634F;

/// 2^x to 2 ulp; results below 2^-126 are 0.
__device__ inline float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// 1 / x to 1 ulp. Division by the intrinsics of CUDA spends instructions on denormal numbers, which do not
/// matter here.
__device__ inline float reciprocal_approx(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// 1 / (1 + exp(-x)).
__device__ inline float sigmoid(float x) { return reciprocal_approx(1.0F + exp2_approx(-x * kLog2E)); }

}  // namespace longstrand::cuda
