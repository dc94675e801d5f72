// A parameter's gradient is the sum over all rows of a record. Added to it one by one, rows get lost in the
// rounding of the sum when there are millions; so an operation that goes row by row adds up its call's first.
#pragma once

#include <algorithm>
#include <functional>

#include "kernels/context.hpp"
#include "kernels/view.hpp"

namespace longstrand {

/// Zeros of the shape of `total`, to which they are added on destruction. Host memory.
template <int Rank>
class PartialSum {
 public:
  PartialSum(const View<float, Rank>& total, Context& context)
      : scope_(context.scratch), total_(total), part_(context.scratch.take<float, Rank>(total.shape)) {
    std::fill_n(part_.data, part_.size(), 0.0F);
  }
  ~PartialSum() {
    const std::int64_t width = part_.shape[Rank - 1];
    for (std::int64_t row = 0; row * width < part_.size(); ++row) {
      float* to = total_.data + (Rank == 1 ? 0 : row * total_.stride[0]);
      std::transform(to, to + width, part_.data + row * width, to, std::plus<>());
    }
  }
  PartialSum(const PartialSum&) = delete;
  PartialSum& operator=(const PartialSum&) = delete;

  View<float, Rank> view() const { return part_; }

 private:
  static_assert(Rank == 1 || Rank == 2);
  Arena::Scope scope_;
  View<float, Rank> total_;
  View<float, Rank> part_;
};

}  // namespace longstrand
