// Functions by the special-function units.
#pragma once

namespace longstrand::cuda {

constexpr float kLog2E = 1.4426950408889634F;
constexpr float kLn2 = 0.6931471805599453F;

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

/// s sigmoid(s) for s = -x / log2(e).
__device__ inline float silu_of_scaled(float x) {
  return x * reciprocal_approx(fmaf(-kLog2E, exp2_approx(x), -kLog2E));
}

/// log(1 + e) for e in [0, 1], to 4e-7 of itself: a minimax polynomial; log(1 + e) would lose a small e.
__device__ inline float log1p_unit(float e) {
  float p = -0.008539197966456413F;
  p = fmaf(p, e, 0.04408959671854973F);
  p = fmaf(p, e, -0.10768166184425354F);
  p = fmaf(p, e, 0.17745238542556763F);
  p = fmaf(p, e, -0.24495461583137512F);
  p = fmaf(p, e, 0.33275479078292847F);
  p = fmaf(p, e, -0.4999740421772003F);
  p = fmaf(p, e, 0.9999998211860657F);
  return p * e;
}

/// log(1 + exp(x)).
__device__ inline float softplus(float x) {
  return fmaxf(x, 0.0F) + log1p_unit(exp2_approx(-fabsf(x) * kLog2E));
}

/// softplus to 2^-14 of itself, which is enough before rounding to bfloat16.
__device__ inline float softplus_coarse(float x) {
  const float e = exp2_approx(-fabsf(x) * kLog2E);
  float p = 0.041347306F;  // log(1 + e) / e, minimax in [0, 1]
  p = fmaf(p, e, -0.15742722F);
  p = fmaf(p, e, 0.30630094F);
  p = fmaf(p, e, -0.49697781F);
  p = fmaf(p, e, 0.99994326F);
  return fmaf(p, e, fmaxf(x, 0.0F));
}

/// 1 - exp(-x) for x >= 0, to 3e-6 of itself: the derivative of softplus where its value is x.
__device__ inline float one_minus_exp(float x) {
  float p = fmaf(x, 1.0F / 24, -1.0F / 6);  // Taylor's series: 1 - exp(-x) would lose a small x
  p = fmaf(x, -p, -0.5F);
  p = fmaf(x, p, 1.0F);
  return x < 0.125F ? x * p : 1.0F - exp2_approx(-x * kLog2E);
}

}  // namespace longstrand::cuda
