// Operations that are vectorised over channels take them in groups of kLanes.
#if defined(LONGSTRAND_KERNELS_CHANNEL_GROUP_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef LONGSTRAND_KERNELS_CHANNEL_GROUP_INL_HPP_
#undef LONGSTRAND_KERNELS_CHANNEL_GROUP_INL_HPP_
#else
#define LONGSTRAND_KERNELS_CHANNEL_GROUP_INL_HPP_
#endif

#include <algorithm>

#include "kernels/simd_math-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace longstrand::HWY_NAMESPACE {

/// Channels [channel, channel + count), count <= kLanes. Lanes of a vector past them are computed as zeros.
struct Group {
  std::int64_t channel, count;
};

inline Group group_at(std::int64_t channel, std::int64_t channels) {
  return {channel, std::min(kLanes, channels - channel)};
}

/// Writes zeros to the rows at and past `begin`: the padding of a lane.
template <class T>
void clear_rows(const View<T, 3>& x, std::int64_t lane, std::int64_t begin) {
  for (std::int64_t t = begin; t < x.shape[1]; ++t) std::fill_n(x.at(lane, t), x.shape[2], T{});
}

}  // namespace longstrand::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggled include guard
