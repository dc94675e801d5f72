// The tolerances of all tests of numbers, each with its reason, and the comparison that they are for.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "kernels/view.hpp"

namespace longstrand {

/// The largest error allowed, as a share of the largest |expected| of the array.
struct Tolerance {
  double relative;
  const char* reason;
};

namespace tolerance {

inline constexpr Tolerance kExact{0, "the same operations on the same numbers"};
inline constexpr Tolerance kForward{3e-6, "float, a few dozen roundings of 6e-8, exponentials to 3e-7"};
inline constexpr Tolerance kBackward{1e-5, "float, sums over tokens and channels"};
inline constexpr Tolerance kForwardBFloat16{5e-3, "the result is rounded to 8 bits: 2^-9 of itself"};
inline constexpr Tolerance kBackwardBFloat16{5e-3, "the result is rounded to 8 bits: 2^-9 of itself"};
inline constexpr Tolerance kBackwardManyStatesBFloat16{
    1e-2, "a GPU adds up to four groups of 16 states in bfloat16, rounding after each"};
inline constexpr Tolerance kBackwardPackedStates{
    5e-5, "a GPU keeps a bfloat16 scan's states to 2^-15 of the channel's largest; 2e-5 measured"};
inline constexpr Tolerance kSegmentStatesBFloat16{
    5e-4,
    "the first pass of a GPU's scan expands decays within 16 tokens to 0.0009 of them; 2.6e-4 measured "
    "where a lane ends at a segment's first tokens"};
inline constexpr Tolerance kSoftplusElement{6e-6, "of each element: 3e-7 + 8e-8 |x| for x to 60"};
inline constexpr Tolerance kChunkForward{1e-5, "promised for every split into chunks"};
inline constexpr Tolerance kChunkBackward{1e-4, "promised for every split into chunks"};
inline constexpr Tolerance kDifferences{1e-6,
                                        "central differences in double, step 1e-5: 1e-10 / 1e-5 + step^2"};

// Whole models against the official code's outputs.
inline constexpr Tolerance kGoldenLogits{1e-4, "promised for float"};
inline constexpr Tolerance kGoldenLogitsBFloat16{2e-2,
                                                 "promised for bfloat16: a few dozen roundings of 2^-9"};
inline constexpr Tolerance kGoldenGradients{1e-3,
                                            "promised; the official gradients are float sums themselves"};
inline constexpr Tolerance kGoldenCurve{1e-3, "promised, per step, absolute"};
inline constexpr Tolerance kGoldenWeights{1e-2,
                                          "AdamW turns a gradient near 0 of either sign into a full step"};

}  // namespace tolerance

/// The tolerance of an operation's result of element type T against the float64 reference.
template <class T>
constexpr Tolerance forward_tolerance() {
  return std::is_same_v<T, bfloat16> ? tolerance::kForwardBFloat16 : tolerance::kForward;
}
template <class T>
constexpr Tolerance backward_tolerance() {
  return std::is_same_v<T, bfloat16> ? tolerance::kBackwardBFloat16 : tolerance::kBackward;
}
/// Of the states that a scan of T gives, and of their gradients.
template <class T>
constexpr Tolerance state_tolerance() {
  return std::is_same_v<T, bfloat16> ? tolerance::kSegmentStatesBFloat16 : tolerance::kForward;
}

inline void expect_near(const char* what, const std::vector<double>& actual,
                        const std::vector<double>& expected, Tolerance tolerance) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  double scale = 0;
  for (const double value : expected) scale = std::max(scale, std::abs(value));
  for (std::size_t i = 0; i < actual.size(); ++i) {
    // Negated, so that a NaN fails too.
    ASSERT_FALSE(!(std::abs(actual[i] - expected[i]) <= tolerance.relative * scale))
        << what << "[" << i << "] is " << actual[i] << ", expected " << expected[i] << " within "
        << tolerance.relative << " of " << scale << " (" << tolerance.reason << ")";
  }
}

}  // namespace longstrand
