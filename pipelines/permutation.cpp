#include "pipelines/permutation.hpp"

#include <cassert>

#include "src/seeded_hash.hpp"

namespace longstrand::pipelines {

Permutation::Permutation(std::int64_t size, std::uint64_t seed)
    : size_(static_cast<std::uint64_t>(size)), seed_(seed) {
  assert(size >= 1);
  while (half_bits_ < 31 && (std::uint64_t{1} << (2 * half_bits_)) < size_) ++half_bits_;
}

std::int64_t Permutation::operator()(std::int64_t index) const {
  assert(index >= 0 && static_cast<std::uint64_t>(index) < size_);
  auto value = encrypt(static_cast<std::uint64_t>(index));
  while (value >= size_) value = encrypt(value);
  return static_cast<std::int64_t>(value);
}

std::uint64_t Permutation::encrypt(std::uint64_t value) const {
  constexpr int kRounds = 6;
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  std::uint64_t left = value >> half_bits_;
  std::uint64_t right = value & mask;
  for (int round = 0; round < kRounds; ++round) {
    const std::uint64_t next = left ^ (seeded_hash(seed_, round, right) & mask);
    left = right;
    right = next;
  }
  return (left << half_bits_) | right;
}

}  // namespace longstrand::pipelines
