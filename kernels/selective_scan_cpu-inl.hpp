// What the forward and the backward scan on the CPU share. Both take a lane in segments of
// kScanCheckpoint_tokens tokens, and a segment in groups of kLanes neighbouring channels, so that a group's
// operands are vectors and its scratch stays in the first-level cache.
#if defined(LONGSTRAND_KERNELS_SELECTIVE_SCAN_CPU_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef LONGSTRAND_KERNELS_SELECTIVE_SCAN_CPU_INL_HPP_
#undef LONGSTRAND_KERNELS_SELECTIVE_SCAN_CPU_INL_HPP_
#else
#define LONGSTRAND_KERNELS_SELECTIVE_SCAN_CPU_INL_HPP_
#endif

#include "kernels/channel_group-inl.hpp"
#include "kernels/selective_scan.hpp"

HWY_BEFORE_NAMESPACE();
namespace longstrand::HWY_NAMESPACE {

/// Tokens [begin, begin + tokens) of a lane, in walking order.
struct Segment {
  std::int64_t lane, begin, tokens;
  TokenOrder order;

  /// Where the segment's token t stands.
  std::int64_t row(std::int64_t t) const { return order.row(begin + t); }
};

/// The operand's rows of a segment.
template <class T>
HWY_INLINE GroupRows<T> segment_rows(const View<T, 3>& x, const Segment& segment, const Group& group) {
  return {x, segment.lane, segment.order, segment.begin, group};
}

/// The matrix at the given outer indices.
template <class T, int Rank, class... Index>
View<T, 2> innermost(const View<T, Rank>& x, Index... outer) {
  static_assert(sizeof...(Index) == Rank - 2);
  return {x.at(outer...), {x.shape[Rank - 2], x.shape[Rank - 1]}, {x.stride[Rank - 2], 1}, x.device};
}

/// b or c of a segment as packed floats [tokens, N].
template <class T>
void widen_rows(const View<const T, 3>& from, const Segment& segment, float* to) {
  const std::int64_t states = from.shape[2];
  for (std::int64_t t = 0; t < segment.tokens; ++t, to += states) {
    const T* row = from.at(segment.lane, segment.row(t));
    for (std::int64_t n = 0; n < states; n += kLanes) {
      store(load(row + n, states - n), to + n, states - n);
    }
  }
}

}  // namespace longstrand::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggled include guard
