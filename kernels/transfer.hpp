// Copying and filling views, whatever devices they lie on.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels/check.hpp"
#include "kernels/context.hpp"
#include "kernels/view.hpp"

namespace longstrand {

namespace detail {
/// `rows` runs of `row_bytes` each, strides in bytes.
struct Runs {
  std::int64_t rows, row_bytes, from_stride, to_stride;
};
void copy_runs(const void* from, Device from_device, void* to, Device to_device, const Runs& runs,
               Context& context);
template <class T>
void fill_runs(T* to, std::int64_t rows, std::int64_t row_size, std::int64_t row_stride, T value,
               Context& context);
}  // namespace detail

/// Copies between views of one shape, from and to any device. In order with the operations of `context`; what
/// lies on the host may be used or freed on return. To a GPU it returns before the copy is done; to the host
/// it waits for it (kernels/readback.hpp does not).
template <class T, int Rank>
void copy(const View<const T, Rank>& from, const View<T, Rank>& to, Context& context) {
  require_shape<T, Rank>("copy: to", to, from.shape);
  if (from.size() == 0) return;
  const auto bytes = [](std::int64_t count) { return count * std::int64_t{sizeof(T)}; };
  if (from.packed() && to.packed()) {
    detail::copy_runs(from.data, from.device, to.data, to.device,
                      {1, bytes(from.size()), bytes(from.size()), bytes(from.size())}, context);
  } else if constexpr (Rank >= 2) {
    const auto row = from.index(0);
    if (row.packed() && to.index(0).packed()) {
      detail::copy_runs(from.data, from.device, to.data, to.device,
                        {from.shape[0], bytes(row.size()), bytes(from.stride[0]), bytes(to.stride[0])},
                        context);
    } else {
      for (std::int64_t i = 0; i < from.shape[0]; ++i) copy(from.index(i), to.index(i), context);
    }
  }
}
template <class T, int Rank>
void copy(const View<T, Rank>& from, const View<T, Rank>& to, Context& context) {
  copy(View<const T, Rank>(from), to, context);
}

/// Every element becomes `value`.
template <class T, int Rank>
void fill(const View<T, Rank>& to, std::type_identity_t<T> value, Context& context) {
  if (to.size() == 0) return;
  if (to.packed()) {
    detail::fill_runs(to.data, 1, to.size(), to.size(), value, context);
  } else if constexpr (Rank >= 2) {
    const auto row = to.index(0);
    if (row.packed()) {
      detail::fill_runs(to.data, to.shape[0], row.size(), to.stride[0], value, context);
    } else {
      for (std::int64_t i = 0; i < to.shape[0]; ++i) fill(to.index(i), value, context);
    }
  }
}

/// Values of the host where operations of `context` can read them: a packed copy in `arena`, which is of the
/// context's device, or on a CPU the view itself.
template <class T, int Rank>
View<const T, Rank> upload(const View<const T, Rank>& from, Arena& arena, Context& context) {
  if (context.device.kind == DeviceKind::cpu) return from;
  const auto to = arena.take<T, Rank>(from.shape);
  copy(from, to, context);
  return to;
}
template <class T>
View<const T, 1> upload(const std::vector<T>& from, Arena& arena, Context& context) {
  return upload(View<const T, 1>(from.data(), {static_cast<std::int64_t>(from.size())}), arena, context);
}

}  // namespace longstrand
