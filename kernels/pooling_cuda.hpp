// Pooling on a GPU; operands as in pooling.hpp, already checked.
#pragma once

#include "kernels/pooling.hpp"

namespace longstrand::cuda {

template <class T>
void pooling_forward(View<const T, 3> hidden, View<const std::int64_t, 1> valid, Pooling mode,
                     View<double, 2> pooled, Context& context);

template <class T>
void pooling_backward(View<const float, 2> d_pooled, View<const std::int64_t, 1> valid,
                      View<const std::uint8_t, 1> is_last, Pooling mode, View<T, 3> d_hidden,
                      Context& context);

}  // namespace longstrand::cuda
