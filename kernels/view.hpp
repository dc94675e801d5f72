// Views: shape, strides and device beside a pointer. They own nothing.
//
// Letters used for shapes in kernels/ and src/:
//   B lanes (sequences side by side)    T tokens of a chunk       M = B * T rows
//   D channels of a layer's operand     N states per channel      K taps of the convolution
//   V vocabulary, padded
#pragma once

#include <array>
#include <bit>
#include <cassert>
#include <cstdint>
#include <type_traits>

namespace longstrand {

/// Whether the CUDA backend is part of this build.
inline constexpr bool kCudaBuilt = LONGSTRAND_CUDA_BUILT;
/// Whether the CPU operations are: they need Highway and oneDNN.
inline constexpr bool kCpuBuilt = LONGSTRAND_CPU_BUILT;

enum class DeviceKind : std::uint8_t { cpu, cuda };

struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;
  friend bool operator==(const Device&, const Device&) = default;
};

/// Storage of a bfloat16; arithmetic is done in float.
struct bfloat16 {
  std::uint16_t bits = 0;
  bfloat16() = default;
  /// Rounds to nearest even; NaN stays NaN.
  explicit bfloat16(float value) {
    const auto word = std::bit_cast<std::uint32_t>(value);
    const bool nan = (word & 0x7fffffffU) > 0x7f800000U;
    bits =
        static_cast<std::uint16_t>(nan ? (word >> 16) | 0x40U : (word + 0x7fffU + ((word >> 16) & 1U)) >> 16);
  }
  explicit operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
};

/// A dense array of `Rank` dimensions whose last one is contiguous. Shape and stride count elements.
template <class T, int Rank>
struct View {
  using Extents = std::array<std::int64_t, Rank>;

  T* data = nullptr;
  Extents shape{};
  Extents stride{};
  Device device{};

  View() = default;
  /// A packed view: strides follow from the shape.
  View(T* pointer, Extents extents, Device where = {}) : data(pointer), shape(extents), device(where) {
    std::int64_t step = 1;
    for (int i = Rank - 1; i >= 0; --i) {
      stride[i] = step;
      step *= shape[i];
    }
  }
  View(T* pointer, Extents extents, Extents strides, Device where)
      : data(pointer), shape(extents), stride(strides), device(where) {
    assert(stride[Rank - 1] == 1);
  }
  /// View<T> reads as View<const T>.
  operator View<const T, Rank>() const requires(!std::is_const_v<T>) { return {data, shape, stride, device}; }

  bool empty() const { return data == nullptr; }
  std::int64_t size() const {
    std::int64_t product = 1;
    for (const std::int64_t extent : shape) product *= extent;
    return product;
  }
  bool packed() const { return stride == View(data, shape, device).stride; }

  /// The first element of the innermost run at the given outer indices.
  template <class... Index>
  T* at(Index... index) const {
    static_assert(sizeof...(Index) <= Rank);
    const std::array<std::int64_t, sizeof...(Index)> indices{static_cast<std::int64_t>(index)...};
    T* pointer = data;
    for (std::size_t i = 0; i < indices.size(); ++i) pointer += indices[i] * stride[i];
    return pointer;
  }
  /// Columns [begin, begin + count) of the last dimension.
  View columns(std::int64_t begin, std::int64_t count) const {
    View part = *this;
    part.data += begin;
    part.shape[Rank - 1] = count;
    assert(begin >= 0 && begin + count <= shape[Rank - 1]);
    return part;
  }
  /// [...] at index `i` of the first dimension.
  View<T, Rank - 1> index(std::int64_t i) const requires(Rank > 1) {
    View<T, Rank - 1> part;
    part.data = data + i * stride[0];
    for (int d = 1; d < Rank; ++d) part.shape[d - 1] = shape[d], part.stride[d - 1] = stride[d];
    part.device = device;
    return part;
  }
  /// [count, ...] from index `begin` of the first dimension.
  View slice(std::int64_t begin, std::int64_t count) const {
    View part = *this;
    part.data += begin * stride[0];
    part.shape[0] = count;
    assert(begin >= 0 && begin + count <= shape[0]);
    return part;
  }
};

/// [B, T, D] as [B * T, D]; the lanes must follow one another without a gap.
template <class T>
View<T, 2> rows(const View<T, 3>& x) {
  assert(x.shape[0] == 1 || x.stride[0] == x.shape[1] * x.stride[1]);
  return {x.data, {x.shape[0] * x.shape[1], x.shape[2]}, {x.stride[1], 1}, x.device};
}

/// [P] as [1, P].
template <class T>
View<T, 2> as_row(const View<T, 1>& x) {
  return {x.data, {1, x.shape[0]}, x.device};
}

/// Whether a gradient replaces what is in its view or is added to it.
enum class GradientMode : std::uint8_t { overwrite, accumulate };

}  // namespace longstrand
