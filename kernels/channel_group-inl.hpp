// Operations that are vectorised over channels take them in groups of kLanes.
#if defined(LONGSTRAND_KERNELS_CHANNEL_GROUP_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef LONGSTRAND_KERNELS_CHANNEL_GROUP_INL_HPP_
#undef LONGSTRAND_KERNELS_CHANNEL_GROUP_INL_HPP_
#else
#define LONGSTRAND_KERNELS_CHANNEL_GROUP_INL_HPP_
#endif

#include <algorithm>

#include "kernels/direction.hpp"
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

/// A group's channels of a lane, token by token as they are walked from token `begin` on. The rows of a wide
/// operand lie pages apart, where no processor fetches ahead on its own: whoever walks a group asks for the
/// next one, which then waits in the second-level cache. (The rows of a group are too many for the few lines of
/// the first one that they share.)
template <class T>
class GroupRows {
 public:
  HWY_INLINE GroupRows(const View<T, 3>& x, std::int64_t lane, const TokenOrder& order, std::int64_t begin,
                       const Group& group)
      : first_(x.at(lane, order.row(begin), group.channel)),
        step_(order.step * x.stride[1]),
        count_(group.count) {}

  HWY_INLINE FloatVec get(std::int64_t t) const { return load(first_ + t * step_, count_); }
  HWY_INLINE void put(FloatVec value, std::int64_t t) const { store(value, first_ + t * step_, count_); }
  HWY_INLINE void fetch_next_group(std::int64_t t) const {
    __builtin_prefetch(first_ + t * step_ + count_, /*write=*/0, /*locality=*/2);
  }

 private:
  T* first_;
  std::int64_t step_;
  std::int64_t count_;
};

/// Writes zeros to the rows at and past `begin`: the padding of a lane.
template <class T>
void clear_rows(const View<T, 3>& x, std::int64_t lane, std::int64_t begin) {
  for (std::int64_t t = begin; t < x.shape[1]; ++t) std::fill_n(x.at(lane, t), x.shape[2], T{});
}

}  // namespace longstrand::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggled include guard
