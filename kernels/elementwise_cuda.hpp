// kernels/elementwise.hpp and the filling of kernels/transfer.hpp on a GPU.
#pragma once

#include <span>

#include "kernels/context.hpp"
#include "kernels/view.hpp"

namespace longstrand::cuda {

template <class From, class To>
void convert(View<const From, 2> from, View<To, 2> to, Context& context);
template <class From, class To>
void add(View<const From, 2> from, View<To, 2> to, Context& context);
template <class T>
void multiply(View<const T, 2> from, View<T, 2> to, Context& context);
template <class T>
void multiply_backward(View<const T, 2> a, View<const T, 2> b, View<const T, 2> d_product, View<T, 2> d_a,
                       View<T, 2> d_b, Context& context);
template <class T>
void fill_runs(T* to, std::int64_t rows, std::int64_t row_size, std::int64_t row_stride, T value,
               Context& context);
template <class T>
void fill_marked_rows(std::span<const View<T, 2>> to, View<const std::uint8_t, 1> marked, T value,
                      Context& context);

}  // namespace longstrand::cuda
