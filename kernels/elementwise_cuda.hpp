// kernels/elementwise.hpp on a GPU.
#pragma once

#include "kernels/context.hpp"
#include "kernels/view.hpp"

namespace longstrand::cuda {

template <class From, class To>
void convert(View<const From, 2> from, View<To, 2> to, Context& context);
void add(View<const float, 1> from, View<float, 1> to, Context& context);
template <class T>
void fill_marked_rows(View<T, 2> to, View<const std::uint8_t, 1> marked, T value, Context& context);

}  // namespace longstrand::cuda
