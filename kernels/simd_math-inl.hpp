// Loads, stores and elementary functions on vectors of float, for the CPU operations. Compiled once for each
// instruction set, inside HWY_NAMESPACE; see an operation's _cpu.cpp for the frame that includes it.
//
// Relative errors are below 3e-7 + 8e-8 |x| wherever the result is a normal number
// (tests/kernels/test_simd_math.cpp).
#if defined(LONGSTRAND_KERNELS_SIMD_MATH_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef LONGSTRAND_KERNELS_SIMD_MATH_INL_HPP_
#undef LONGSTRAND_KERNELS_SIMD_MATH_INL_HPP_
#else
#define LONGSTRAND_KERNELS_SIMD_MATH_INL_HPP_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/view.hpp"

HWY_BEFORE_NAMESPACE();
namespace longstrand::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
using FloatVec = hn::Vec<FloatTag>;
inline constexpr std::int64_t kLanes = hn::MaxLanes(FloatTag());

HWY_INLINE FloatVec set(float value) { return hn::Set(FloatTag(), value); }

// ---- Loads and stores. No alignment is asked for. Those with a count touch the first `count` elements only
// ---- (all kLanes of them where count is larger); the lanes past it are loaded as 0.

HWY_INLINE FloatVec load(const float* from) { return hn::LoadU(FloatTag(), from); }

HWY_INLINE FloatVec load(const bfloat16* from) {
  const hn::Rebind<std::uint16_t, FloatTag> half;
  const hn::RebindToUnsigned<FloatTag> word;
  const auto bits = hn::LoadU(half, reinterpret_cast<const std::uint16_t*>(from));
  return hn::BitCast(FloatTag(), hn::ShiftLeft<16>(hn::PromoteTo(word, bits)));
}

HWY_INLINE void store(FloatVec value, float* to) { hn::StoreU(value, FloatTag(), to); }

/// Rounds as bfloat16's constructor does: to nearest even, NaN stays NaN. (Highway's DemoteTo truncates.)
HWY_INLINE void store(FloatVec value, bfloat16* to) {
  const hn::Rebind<std::uint16_t, FloatTag> half;
  const hn::RebindToUnsigned<FloatTag> word;
  const hn::RebindToSigned<FloatTag> signed_word;
  const auto bits = hn::BitCast(word, value);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(word, 1));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(word, 0x7fff)));
  const auto quiet_nan = hn::Or(bits, hn::Set(word, 0x400000));
  const auto is_nan = hn::RebindMask(word, hn::IsNaN(value));
  const auto top = hn::ShiftRight<16>(hn::IfThenElse(is_nan, quiet_nan, rounded));
  hn::StoreU(hn::DemoteTo(half, hn::BitCast(signed_word, top)), half, reinterpret_cast<std::uint16_t*>(to));
}

template <class T>
HWY_INLINE FloatVec load(const T* from, std::int64_t count) {
  if (count >= kLanes) return load(from);
  T whole[kLanes] = {};
  std::copy_n(from, count, whole);
  return load(whole);
}

template <class T>
HWY_INLINE void store(FloatVec value, T* to, std::int64_t count) {
  if (count >= kLanes) return store(value, to);
  T whole[kLanes];
  store(value, whole);
  std::copy_n(whole, count, to);
}

// ---- Elementary functions.

/// p 2^n for p of about 1 and n a whole number in [-127, 127]; 0 for p = 1 and n = -127.
HWY_INLINE FloatVec scale_by_power_of_2(FloatVec p, FloatVec n) {
  const hn::RebindToSigned<FloatTag> word;
  const auto exponent = hn::ShiftLeft<23>(hn::ConvertTo(word, n));
  return hn::BitCast(FloatTag(), hn::Add(hn::BitCast(word, p), exponent));
}

/// 2^f for f in [-1/2, 1/2], exactly 1 at 0. The minimax polynomial of that form: 9.2e-8.
HWY_INLINE FloatVec exp2_of_fraction(FloatVec f) {
  FloatVec p = set(1.32647272e-3F);
  p = hn::MulAdd(p, f, set(9.67151264e-3F));
  p = hn::MulAdd(p, f, set(5.5507337433e-2F));
  p = hn::MulAdd(p, f, set(2.40222420854e-1F));
  p = hn::MulAdd(p, f, set(6.93146977599e-1F));
  return hn::MulAdd(p, f, set(1.0F));
}

/// 2^x of a finite x. Exactly 1 at 0: a token of dt = 0 leaves the state as it is. The error vanishes with x,
/// which slow decays need: what the scan raises to the power of the record's length must not be biased.
/// From -126 to -127 the result may be anything between 0 and 2^-126, below it is 0; above 127 it may be
/// 2^127.
HWY_INLINE FloatVec exp2(FloatVec x) {
#if HWY_TARGET == HWY_AVX3
  const FloatVec whole = hn::Round(x);
  return FloatVec{_mm512_scalef_ps(exp2_of_fraction(hn::Sub(x, whole)).raw, whole.raw)};
#else
  const FloatVec bounded = hn::Min(hn::Max(x, set(-127.0F)), set(127.0F));
  const FloatVec whole = hn::Round(bounded);
  return scale_by_power_of_2(exp2_of_fraction(hn::Sub(bounded, whole)), whole);
#endif
}

/// e^x. The error grows by 8e-8 |x|, about as much as the rounding of x itself makes it.
HWY_INLINE FloatVec exp(FloatVec x) { return exp2(hn::Mul(x, set(1.44269504F))); }

/// 1 / (1 + e^-x).
HWY_INLINE FloatVec sigmoid(FloatVec x) {
  const FloatVec one = set(1.0F);
  return hn::Div(one, hn::Add(one, exp(hn::Neg(x))));
}

/// x sigmoid(x).
HWY_INLINE FloatVec silu(FloatVec x) { return hn::Div(x, hn::Add(set(1.0F), exp(hn::Neg(x)))); }

/// The derivative of silu at x, given sigmoid(x).
HWY_INLINE FloatVec silu_slope(FloatVec x, FloatVec sigmoid_of_x) {
  const FloatVec one = set(1.0F);
  return hn::Mul(sigmoid_of_x, hn::MulAdd(x, hn::Sub(one, sigmoid_of_x), one));
}

/// log(1 + e^x) = max(x, 0) + log(1 + e) with e = e^-|x|; that logarithm is 2 artanh(e / (2 + e)), whose
/// series keeps its relative precision down to e = 0. Above 20 the second term is lost to rounding: the
/// identity, as in the original implementation.
HWY_INLINE FloatVec softplus(FloatVec x) {
  const FloatVec e = exp(hn::Neg(hn::Abs(x)));
  const FloatVec s = hn::Div(e, hn::Add(e, set(2.0F)));
  const FloatVec s2 = hn::Mul(s, s);
  FloatVec p = set(2.80119867e-1F);  // minimax for s in [0, 1/3]: 4.5e-9
  p = hn::MulAdd(p, s2, set(2.80018053e-1F));
  p = hn::MulAdd(p, s2, set(4.00215272e-1F));
  p = hn::MulAdd(p, s2, set(6.66664163e-1F));
  p = hn::MulAdd(p, s2, set(2.0F));
  return hn::MulAdd(p, s, hn::Max(set(0.0F), x));
}

/// The derivative sigmoid(x) of softplus at x, given y = softplus(x), which is not negative: 1 - e^-y. With
/// e^-y = 2^(n + f) it is (1 - 2^n) - 2^n (2^f - 1), and 2^f - 1 is f times a polynomial: a y near 0, where n
/// is 0, keeps its relative precision.
HWY_INLINE FloatVec softplus_slope(FloatVec y) {
  const FloatVec power = hn::Max(hn::Mul(y, set(-1.44269504F)), set(-127.0F));
  const FloatVec n = hn::Round(power);
  const FloatVec f = hn::Sub(power, n);
  FloatVec p = set(1.54035126e-4F);  // minimax for f in [-1/2, 1/2]: 1.1e-8 of 2^f - 1
  p = hn::MulAdd(p, f, set(1.339073548e-3F));
  p = hn::MulAdd(p, f, set(9.618237494e-3F));
  p = hn::MulAdd(p, f, set(5.5503574337e-2F));
  p = hn::MulAdd(p, f, set(2.40226497950e-1F));
  p = hn::MulAdd(p, f, set(6.93147187927e-1F));
  const FloatVec one = set(1.0F);
  const FloatVec scale = scale_by_power_of_2(one, n);
  return hn::NegMulAdd(scale, hn::Mul(f, p), hn::Sub(one, scale));
}

}  // namespace longstrand::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggled include guard
