#include "kernels/strands.hpp"

#include <algorithm>
#include <iterator>

#include "kernels/check.hpp"
#include "kernels/strands_cuda.hpp"

namespace longstrand {
namespace {

void check(const View<float, 4>& rows, const View<const std::int64_t, 1>& length) {
  const auto [chunks, lanes, tokens, columns] = rows.shape;
  require_shape("strands: rows", rows, {chunks, lanes, tokens, columns});
  require_shape("strands: length", length, {lanes});
  if (lanes % 2 != 0) throw std::logic_error(concat("strands: ", lanes, " lanes are not pairs of strands"));
}

/// visit(row, facing row) for each row of the strands that were read.
template <class Visit>
void for_each_row(const View<float, 4>& rows, const View<const std::int64_t, 1>& length, const Visit& visit) {
  const auto [chunks, lanes, tokens, columns] = rows.shape;
  const auto row = [&](std::int64_t lane, std::int64_t t) { return rows.at(t / tokens, lane, t % tokens); };
  for (std::int64_t lane = 0; lane < lanes; lane += 2) {
    const std::int64_t count = length.data[lane];
    assert(count >= 0 && count <= chunks * tokens && count == length.data[lane + 1]);
    for (std::int64_t t = 0; t < count; ++t) visit(row(lane, t), row(lane + 1, count - 1 - t));
  }
}

}  // namespace

void exchange_strands(View<float, 4> rows, View<const std::int64_t, 1> length, Context& context) {
  check(rows, length);
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) return cuda::exchange_strands(rows, length, context);
  }
  const std::int64_t columns = rows.shape[3];
  for_each_row(rows, length, [&](float* row, float* facing) {
    std::swap_ranges(row, row + columns, std::make_reverse_iterator(facing + columns));
  });
}

void add_facing_strands(View<float, 4> rows, View<const std::int64_t, 1> length,
                        View<const std::int32_t, 1> facing, float scale, Context& context) {
  const std::int64_t columns = rows.shape[3];
  check(rows, length);
  require_shape("strands: facing", facing, {columns}, true);
  if constexpr (kCudaBuilt) {
    if (context.device.kind == DeviceKind::cuda) {
      return cuda::add_facing_strands(rows, length, facing, scale, context);
    }
  }
  for_each_row(rows, length, [&](float* row, float* facing_row) {
    for (std::int64_t d = 0; d < columns; ++d) {
      float& other = facing_row[facing.empty() ? d : facing.data[d]];
      row[d] = other = (row[d] + other) * scale;
    }
  });
}

}  // namespace longstrand
