// What joins the strands of a reverse-complement-equivariant model (Caduceus-PS, Schiff et al. 2024). Both
// strands of B records are lanes of one array, 2b the one that was read and 2b + 1 its reverse complement,
// and go through the same layers. Row t of a strand faces row length - 1 - t of the other one.
//
// rows [C, 2B, T, D] holds whole records, in C chunks of T rows: row t of a lane is row t % T of chunk t / T.
// length [2B], the same for both strands of a record and at most C T; rows at and past it stay as they are.
#pragma once

#include "kernels/context.hpp"
#include "kernels/view.hpp"

namespace longstrand {

/// Exchanges row t of each strand with the row that it faces, columns in reverse:
/// rows[2b][t][d] <-> rows[2b + 1][length - 1 - t][D - 1 - d]. Its own inverse, and its own backward.
void exchange_strands(View<float, 4> rows, View<const std::int64_t, 1> length, Context& context);

/// The sum of rows[2b][t][d] and rows[2b + 1][length - 1 - t][facing[d]], times `scale`, takes the place of
/// both. Its own backward. facing [D], a permutation that is its own inverse, says which column each one
/// faces; empty: itself.
void add_facing_strands(View<float, 4> rows, View<const std::int64_t, 1> length,
                        View<const std::int32_t, 1> facing, float scale, Context& context);

}  // namespace longstrand
