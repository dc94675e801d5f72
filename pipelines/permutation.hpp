#pragma once

#include <cstdint>

namespace longstrand::pipelines {

/// A random-looking permutation of [0, size) that needs no memory: a Feistel network on the next larger
/// domain of an even number of bits, walked until it lands inside (four steps at most on average).
class Permutation {
 public:
  /// size >= 1.
  Permutation(std::int64_t size, std::uint64_t seed);

  /// Where `index` goes; 0 <= index < size.
  std::int64_t operator()(std::int64_t index) const;

 private:
  std::uint64_t encrypt(std::uint64_t value) const;

  std::uint64_t size_;
  std::uint64_t seed_;
  int half_bits_ = 1;
};

}  // namespace longstrand::pipelines
