// Plain loops, which the compiler vectorises: pooling is below 1 % of a chunk's time through the layers.
#include "kernels/pooling_cpu.hpp"

#include <cmath>

namespace longstrand::cpu {
namespace {

template <class To, class From>
To convert(From value) {
  return static_cast<To>(static_cast<float>(value));
}

template <class T>
void add_row(const T* from, std::int64_t count, double* to) {
  for (std::int64_t d = 0; d < count; ++d) to[d] += convert<double>(from[d]);
}

/// A NaN on either side stays: the output of a model gone wrong must not look sound.
template <class T>
void take_larger(const T* from, std::int64_t count, double* to) {
  for (std::int64_t d = 0; d < count; ++d) {
    const auto value = convert<double>(from[d]);
    to[d] = value <= to[d] || std::isnan(to[d]) ? to[d] : value;
  }
}

template <class From, class To>
void copy_row(const From* from, std::int64_t count, To* to) {
  for (std::int64_t d = 0; d < count; ++d) to[d] = convert<To>(from[d]);
}

}  // namespace

template <class T>
void pooling_forward(View<const T, 3> hidden, View<const std::int64_t, 1> valid, Pooling mode,
                     View<double, 2> pooled) {
  const auto [lanes, tokens, channels] = hidden.shape;
  for (std::int64_t lane = 0; lane < lanes; ++lane) {
    const std::int64_t count = valid.data[lane];
    assert(count >= 0 && count <= tokens);
    double* to = pooled.at(lane);
    switch (mode) {
      case Pooling::mean:
        for (std::int64_t t = 0; t < count; ++t) add_row(hidden.at(lane, t), channels, to);
        break;
      case Pooling::last:
        if (count > 0) copy_row(hidden.at(lane, count - 1), channels, to);
        break;
      case Pooling::max:
        for (std::int64_t t = 0; t < count; ++t) take_larger(hidden.at(lane, t), channels, to);
        break;
    }
  }
}

template <class T>
void pooling_backward(View<const float, 2> d_pooled, View<const std::int64_t, 1> valid,
                      View<const std::uint8_t, 1> is_last, Pooling mode, View<T, 3> d_hidden) {
  const auto [lanes, tokens, channels] = d_hidden.shape;
  for (std::int64_t lane = 0; lane < lanes; ++lane) {
    const std::int64_t count = valid.data[lane];
    const bool takes_all = mode == Pooling::mean;
    const bool takes_last = mode == Pooling::last && is_last.data[lane] != 0;
    for (std::int64_t t = 0; t < tokens; ++t) {
      if (t < count && (takes_all || (takes_last && t == count - 1))) {
        copy_row(d_pooled.at(lane), channels, d_hidden.at(lane, t));
      } else {
        std::fill_n(d_hidden.at(lane, t), channels, T{});
      }
    }
  }
}

template void pooling_forward(View<const float, 3>, View<const std::int64_t, 1>, Pooling, View<double, 2>);
template void pooling_forward(View<const bfloat16, 3>, View<const std::int64_t, 1>, Pooling, View<double, 2>);
template void pooling_backward(View<const float, 2>, View<const std::int64_t, 1>, View<const std::uint8_t, 1>,
                               Pooling, View<float, 3>);
template void pooling_backward(View<const float, 2>, View<const std::int64_t, 1>, View<const std::uint8_t, 1>,
                               Pooling, View<bfloat16, 3>);

}  // namespace longstrand::cpu
