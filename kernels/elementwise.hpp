// Small operations that go element by element.
#pragma once

#include "kernels/context.hpp"
#include "kernels/view.hpp"

namespace longstrand {

/// to [M, D] = from [M, D]. bfloat16 or double to float.
template <class From, class To>
void convert(View<const From, 2> from, View<To, 2> to, Context& context);

/// to [P] += from [P].
void add(View<const float, 1> from, View<float, 1> to, Context& context);

/// Row m of `to` [M, D] becomes `value` where marked[m] is not 0. float or double.
template <class T>
void fill_marked_rows(View<T, 2> to, View<const std::uint8_t, 1> marked, std::type_identity_t<T> value,
                      Context& context);

}  // namespace longstrand
