// An operand of an operation under test: the view lies between canaries, also from row to row, and starts out
// as NaN, so that an element written outside of it, or not written inside of it, shows.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "kernels/view.hpp"

namespace longstrand {

/// What the tests read and write elements by.
template <class T>
double to_double(T value) {
  if constexpr (std::is_same_v<T, bfloat16>)
    return static_cast<float>(value);
  else
    return static_cast<double>(value);
}

template <class T>
T from_double(double value) {
  if constexpr (std::is_same_v<T, bfloat16>)
    return bfloat16(static_cast<float>(value));
  else
    return static_cast<T>(value);
}

template <class T, int Rank>
class Guarded {
 public:
  using Extents = std::array<std::int64_t, Rank>;

  /// `gap`: canaries between the ends of the runs of every dimension (0: a packed view).
  explicit Guarded(Extents shape, std::int64_t gap = 0) : shape_(shape) {
    std::int64_t step = 1;
    for (int i = Rank - 1; i >= 0; --i) {
      stride_[i] = step;
      step = step * shape[i] + gap;
    }
    storage_.assign(static_cast<std::size_t>(kGuard + step + kGuard), canary());
    for_each([](T& element) { element = initial(); });
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() { expect_canaries(); }

  View<T, Rank> view() { return {storage_.data() + kGuard, shape_, stride_, Device{}}; }
  operator View<T, Rank>() { return view(); }
  operator View<const T, Rank>() { return view(); }

  /// value() for every element, in the order of the view.
  template <class Value>
  void fill(Value value) {
    for_each([&](T& element) { element = from_double<T>(value()); });
  }
  void assign(const std::vector<double>& values) {
    std::size_t i = 0;
    fill([&] { return values.at(i++); });
  }
  /// The elements in the order of the view, without gaps.
  std::vector<double> values() const {
    std::vector<double> copy;
    const_cast<Guarded*>(this)->for_each([&](T& element) { copy.push_back(to_double(element)); });
    return copy;
  }

  void expect_canaries() const {
    std::vector<T> rest = storage_;
    std::vector<T> clean(storage_.size(), canary());
    const_cast<Guarded*>(this)->for_each(
        [&](T& element) { rest[static_cast<std::size_t>(&element - storage_.data())] = canary(); });
    EXPECT_EQ(std::memcmp(rest.data(), clean.data(), rest.size() * sizeof(T)), 0)
        << "written outside of a view of shape [" << shape_text() << "]";
  }

 private:
  static constexpr std::int64_t kGuard = 37;  // odd: no view is aligned to a vector

  static T canary() {
    T value;
    std::memset(static_cast<void*>(&value), 0x5a, sizeof value);
    return value;
  }
  static T initial() {
    if constexpr (std::is_integral_v<T>)
      return std::numeric_limits<T>::max();
    else
      return from_double<T>(std::numeric_limits<double>::quiet_NaN());
  }
  template <class Visit>
  void for_each(Visit visit) {
    Extents index{};
    if (view().size() == 0) return;
    while (true) {
      T* element = storage_.data() + kGuard;
      for (int i = 0; i < Rank; ++i) element += index[i] * stride_[i];
      visit(*element);
      int dimension = Rank - 1;
      while (dimension >= 0 && ++index[dimension] == shape_[dimension]) index[dimension--] = 0;
      if (dimension < 0) return;
    }
  }
  std::string shape_text() const {
    std::string text;
    for (const std::int64_t extent : shape_) text += (text.empty() ? "" : ", ") + std::to_string(extent);
    return text;
  }

  Extents shape_;
  Extents stride_{};
  std::vector<T> storage_;
};

}  // namespace longstrand
