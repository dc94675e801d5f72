// Operands for the tests of offsets past 32 bits: all zeros, but for some rows at their far end.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "kernels/memory.hpp"
#include "kernels/transfer.hpp"
#include "tests/support/device_under_test.hpp"
#include "tests/support/guarded.hpp"
#include "tests/support/random.hpp"
#include "tests/support/tolerances.hpp"

namespace longstrand {

using Doubles = std::vector<double>;

inline constexpr std::int64_t kSlice = 77;  // rows that are not zero

inline Context& context() { return detail::context_for_transfers(); }

template <class T, int Rank>
Doubles values_of(View<T, Rank> view) {
  Array<T, Rank> host(view.shape);
  copy(view, host.view(), context());
  Doubles values;
  for (std::int64_t i = 0; i < host.view().size(); ++i) values.push_back(to_double(host.view().data[i]));
  return values;
}

/// An operand [rows, D] on the GPU, and beside it its last kSlice rows alone.
template <class T>
class Far {
 public:
  Far(std::int64_t rows, std::int64_t channels)
      : whole_({rows, channels}, device_under_test()), alone_({kSlice, channels}, device_under_test()) {}

  /// value() for every element of the last rows.
  template <class Value>
  Far& fill_end(Value value) {
    Array<T, 2> host(alone_.view().shape);
    for (std::int64_t i = 0; i < host.view().size(); ++i) host.view().data[i] = from_double<T>(value());
    copy(host.view(), alone_.view(), context());
    copy(host.view(), whole_end(), context());
    return *this;
  }
  View<T, 2> rows(bool alone) const { return alone ? alone_.view() : whole_.view(); }
  View<T, 3> lane(bool alone) const {  // [1, rows, D]
    const View<T, 2> all = rows(alone);
    return {all.data, {1, all.shape[0], all.shape[1]}, all.device};
  }
  View<T, 1> flat(bool alone) const { return line(alone).index(0); }
  View<T, 2> line(bool alone) const {  // [1, rows * D]
    const View<T, 2> all = rows(alone);
    return {all.data, {1, all.size()}, all.device};
  }

  void expect_same_end(const char* what, Tolerance tolerance) const {
    const Doubles expected = values_of(alone_.view());
    EXPECT_NE(expected, Doubles(expected.size(), 0.0)) << what << " shows nothing";
    expect_near(what, values_of(whole_end()), expected, tolerance);
  }

 private:
  View<T, 2> whole_end() const { return whole_.view().slice(whole_.view().shape[0] - kSlice, kSlice); }

  Array<T, 2> whole_;
  Array<T, 2> alone_;
};

/// A small operand on the GPU of which the whole and the slice each have their own.
template <class T, int Rank>
class Both {
 public:
  explicit Both(std::array<std::int64_t, Rank> shape)
      : whole_(shape, device_under_test()), alone_(shape, device_under_test()) {}
  template <class Value>
  Both& fill(Value value) {
    Array<T, Rank> host(whole_.view().shape);
    for (std::int64_t i = 0; i < host.view().size(); ++i) host.view().data[i] = from_double<T>(value());
    copy(host.view(), whole_.view(), context());
    copy(host.view(), alone_.view(), context());
    return *this;
  }
  View<T, Rank> of(bool alone) const { return alone ? alone_.view() : whole_.view(); }
  void expect_same(const char* what, Tolerance tolerance) const {
    const Doubles expected = values_of(alone_.view());
    EXPECT_NE(expected, Doubles(expected.size(), 0.0)) << what << " shows nothing";
    expect_near(what, values_of(whole_.view()), expected, tolerance);
  }

 private:
  Array<T, Rank> whole_;
  Array<T, Rank> alone_;
};

/// [1]: all rows are valid.
inline Both<std::int64_t, 1> all_valid(std::int64_t rows) {
  Both<std::int64_t, 1> valid({1});
  fill(valid.of(false), rows, context());
  fill(valid.of(true), kSlice, context());
  return valid;
}

inline auto normal(std::uint64_t stream) {
  return [random = Random(stream)]() mutable { return random.normal(); };
}
inline auto token(std::uint64_t stream) {
  return [random = Random(stream)]() mutable { return static_cast<double>(random.integer(7, 10)); };
}

/// Calls body(rows) for operands of `channels` that end past 2^31 and past 2^32 elements. A device without
/// the memory for it is a visible skip.
template <class Body>
void past_32_bits(std::int64_t channels, const Body& body) {
  for (const int bits : {31, 32}) {
    SCOPED_TRACE(bits);
    try {
      body((std::int64_t{1} << bits) / channels + 2 * kSlice);
    } catch (const DeviceOutOfMemory& error) {
      GTEST_SKIP() << error.what();
    }
  }
}

inline constexpr bool kEnds[] = {false, true};  // the whole, the slice alone

}  // namespace longstrand
