// Random decisions as pure functions of a seed and of what is decided, so that nothing random has to be saved
// or replayed when a run is resumed.
#pragma once

#include <cstdint>
#include <string_view>

namespace longstrand {

/// The finaliser of splitmix64: every bit of the result depends on every bit of the value.
constexpr std::uint64_t mix_bits(std::uint64_t value) {
  value += 0x9e3779b97f4a7c15U;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9U;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebU;
  return value ^ (value >> 31);
}

template <class... More>
constexpr std::uint64_t seeded_hash(std::uint64_t seed, More... more) {
  ((seed = mix_bits(seed ^ mix_bits(static_cast<std::uint64_t>(more)))), ...);
  return seed;
}

/// FNV-1a of the bytes; `hash` is that of the bytes before them.
constexpr std::uint64_t fnv1a(std::string_view bytes, std::uint64_t hash = 0xcbf29ce484222325U) {
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  return hash;
}

constexpr std::uint64_t seeded_hash(std::uint64_t seed, std::string_view text) {
  return mix_bits(seed ^ fnv1a(text));
}

/// A hash as a number in [0, 1).
constexpr double unit_interval(std::uint64_t hash) { return static_cast<double>(hash >> 11) * 0x1.0p-53; }

}  // namespace longstrand
