// An operand of an operation under test: the view lies between canaries, also from row to row, and starts out
// as NaN, so that an element written outside of it, or not written inside of it, shows.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <exception>
#include <limits>
#include <mutex>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/memory.hpp"
#include "kernels/transfer.hpp"
#include "kernels/view.hpp"
#include "tests/support/device_under_test.hpp"

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

/// Lies on the device under test. On a GPU a copy in host memory is what the test fills and reads: it goes to
/// the device when view() is asked for, and comes back, canaries included, when the test looks. A view taken
/// before the test wrote is out of date.
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
    storage_.assign(static_cast<std::size_t>(guard() + step + guard()), canary());
    for_each([](T& element) { element = initial(); });
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() {
    try {
      expect_canaries();
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
  }

  const Extents& shape() const { return shape_; }

  /// On the device under test.
  View<T, Rank> view() {
    if (!on_gpu()) return host_view();
    if (!device_is_newer_) {
      if (on_device_.view().empty()) on_device_ = Array<T, 1>(extent(), placement_.device);
      transfer(host_storage(), on_device_.view());
      device_is_newer_ = true;
    }
    return {on_device_.view().data + guard(), shape_, stride_, placement_.device};
  }
  operator View<T, Rank>() { return view(); }
  operator View<const T, Rank>() { return view(); }

  /// The same elements in host memory, to be written to.
  View<T, Rank> host() {
    fetch();
    device_is_newer_ = false;
    return host_view();
  }
  /// value() for every element, in the order of the view.
  template <class Value>
  void fill(Value value) {
    host();
    for_each([&](T& element) { element = from_double<T>(value()); });
  }
  void assign(const std::vector<double>& values) {
    std::size_t i = 0;
    fill([&] { return values.at(i++); });
  }
  /// The elements in the order of the view, without gaps.
  std::vector<double> values() const {
    fetch();
    std::vector<double> copy;
    for_each([&](T& element) { copy.push_back(to_double(element)); });
    return copy;
  }

  void expect_canaries() const {
    fetch();
    std::vector<T> rest = storage_;
    std::vector<T> clean(storage_.size(), canary());
    for_each([&](T& element) { rest[static_cast<std::size_t>(&element - storage_.data())] = canary(); });
    EXPECT_EQ(std::memcmp(rest.data(), clean.data(), rest.size() * sizeof(T)), 0)
        << "written outside of a view of shape [" << shape_text() << "]";
  }

 private:
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

  std::int64_t guard() const { return placement_.guard; }
  bool on_gpu() const { return placement_.device.kind != DeviceKind::cpu; }
  std::array<std::int64_t, 1> extent() const { return {static_cast<std::int64_t>(storage_.size())}; }
  View<T, 1> host_storage() const { return {storage_.data(), extent()}; }
  View<T, Rank> host_view() const { return {storage_.data() + guard(), shape_, stride_, Device{}}; }

  void fetch() const {
    if (device_is_newer_) transfer(on_device_.view(), host_storage());
  }
  /// In order with the operations of every context, on any thread. It waits for those before it, which may
  /// still use what is copied over, and for itself: those after it go to streams of their own.
  void transfer(View<T, 1> from, View<T, 1> to) const {
    const std::scoped_lock lock(detail::transfers_mutex());
    Context& context = detail::context_for_transfers();
    synchronize(placement_.device);
    copy(from, to, context);
    context.synchronize();
  }

  template <class Visit>
  void for_each(Visit visit) const {
    Extents index{};
    const View<T, Rank> all = host_view();
    if (all.size() == 0) return;
    while (true) {
      T* element = all.data;
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

  Placement placement_ = placement_under_test();
  Extents shape_;
  Extents stride_{};
  mutable std::vector<T> storage_;
  Array<T, 1> on_device_;         // as storage_
  bool device_is_newer_ = false;  // or as new: since view()
};

}  // namespace longstrand
