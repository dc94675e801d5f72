// Operands [B, T, *] in device code, whose tokens are walked in either direction.
#pragma once

#include "kernels/cuda_session.cuh"
#include "kernels/direction.hpp"

namespace longstrand::cuda {

/// A View<T, 3> for device code. Places count the rows of a lane from its first one in the direction of the
/// walk: in reverse they go down, and the lane's rows are places 0, -1, -2 and so on.
template <class T>
struct Rows {
  T* data = nullptr;
  std::int64_t lane_stride = 0;
  std::int64_t place_stride = 0;  // from a place to the next one

  Rows() = default;
  template <class U>
  Rows(const View<U, 3>& view, Direction direction)
      : data(view.data),
        lane_stride(view.stride[0]),
        place_stride(direction == Direction::forward ? view.stride[1] : -view.stride[1]) {}
  __device__ T* at(std::int64_t lane, std::int64_t place, std::int64_t channel) const {
    return data + lane * lane_stride + place * place_stride + channel;
  }
  /// Whether pieces of so many bytes of all rows lie at multiples of as many.
  bool aligned(std::int64_t piece_bytes = 16) const {
    const auto piece = piece_bytes / static_cast<std::int64_t>(sizeof(T));
    return reinterpret_cast<std::uintptr_t>(data) % piece_bytes == 0 && lane_stride % piece == 0 &&
           place_stride % piece == 0;
  }
};

/// The place of the token that is walked first in a lane of so many valid ones.
__device__ inline std::int64_t first_place(Direction direction, std::int64_t valid) {
  return direction == Direction::forward ? 0 : 1 - valid;
}
/// Of a row that may be padding.
__device__ inline std::int64_t place_of_row(Direction direction, std::int64_t row) {
  return direction == Direction::forward ? row : -row;
}

}  // namespace longstrand::cuda
