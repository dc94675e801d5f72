// A record's hidden rows -> one vector, chunk by chunk, over valid tokens only.
#pragma once

#include <string>

#include "kernels/context.hpp"
#include "kernels/view.hpp"

namespace longstrand {

enum class Pooling : std::uint8_t { mean, last, max };

/// "mean", "last" or "max"; the parser throws std::invalid_argument for anything else.
std::string pooling_name(Pooling pooling);
Pooling parse_pooling(const std::string& name);

/// Adds a chunk: hidden [B, T, D], valid [B], pooled [B, D] in and out.
/// mean: pooled is the running sum (divide by the record's length at its end); last: the last valid row so
/// far; max: the running maximum. The caller starts pooled at pooling_identity(mode). It is double because
/// float sums of ones stand still past 2^24 rows.
template <class T>
void pooling_forward(View<const T, 3> hidden, View<const std::int64_t, 1> valid, Pooling mode,
                     View<double, 2> pooled, Context& context);

double pooling_identity(Pooling mode);

/// The gradient of the pooled vector back to a chunk's rows; d_hidden [B, T, D] is overwritten, zero on
/// padding. mean: d_pooled [B, D] (already divided by the length) to every valid row; last: to row valid[b] -
/// 1 of the lanes b in which is_last[b] is not 0 (is_last may be empty for mean). max has no backward.
template <class T>
void pooling_backward(View<const float, 2> d_pooled, View<const std::int64_t, 1> valid,
                      View<const std::uint8_t, 1> is_last, Pooling mode, View<T, 3> d_hidden,
                      Context& context);

}  // namespace longstrand
