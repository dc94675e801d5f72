// Small operations that go element by element. T is float or bfloat16; arithmetic is done in float.
#pragma once

#include <span>

#include "kernels/context.hpp"
#include "kernels/view.hpp"

namespace longstrand {

/// to [M, D] = from [M, D]. bfloat16 or double to float, float to either T.
template <class From, class To>
void convert(View<const From, 2> from, View<To, 2> to, Context& context);

/// to [M, D] += from [M, D]. T to T, or to float.
template <class From, class To>
void add(View<const From, 2> from, View<To, 2> to, Context& context);
/// to [P] += from [P].
inline void add(View<const float, 1> from, View<float, 1> to, Context& context) {
  add<float, float>(as_row(from), as_row(to), context);
}

/// to [M, D] *= from [M, D].
template <class T>
void multiply(View<const T, 2> from, View<T, 2> to, Context& context);

/// Of the product a b, all [M, D]: d_a = d_product b and d_b = d_product a, overwritten. One of them may be
/// d_product.
template <class T>
void multiply_backward(View<const T, 2> a, View<const T, 2> b, View<const T, 2> d_product, View<T, 2> d_a,
                       View<T, 2> d_b, Context& context);

/// Row m of each of `to`, all [M, D], becomes `value` where marked[m] is not 0. float or double.
template <class T>
void fill_marked_rows(std::span<const View<T, 2>> to, View<const std::uint8_t, 1> marked,
                      std::type_identity_t<T> value, Context& context);
template <class T>
void fill_marked_rows(const View<T, 2>& to, View<const std::uint8_t, 1> marked, std::type_identity_t<T> value,
                      Context& context) {
  fill_marked_rows(std::span(&to, 1), marked, value, context);
}

}  // namespace longstrand
