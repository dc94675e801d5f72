#include "io/packed_bases.hpp"

#include <array>
#include <cstring>
#include <string_view>

namespace longstrand::io {
namespace {

constexpr std::string_view kLetters = "=ACMGRSVTWYHKDBN";
constexpr std::string_view kComplements = "=TGKCYSBAWRDMHVN";

using Pair = std::array<char, 2>;
using PairTable = std::array<Pair, 256>;

// Both letters of a byte, the high half first.
constexpr PairTable forward_pairs() {
  PairTable table{};
  for (std::size_t byte = 0; byte < table.size(); ++byte)
    table[byte] = {kLetters[byte >> 4], kLetters[byte & 15]};
  return table;
}

// Both complements of a byte, the low half first.
constexpr PairTable reverse_pairs() {
  PairTable table{};
  for (std::size_t byte = 0; byte < table.size(); ++byte) {
    table[byte] = {kComplements[byte & 15], kComplements[byte >> 4]};
  }
  return table;
}

constexpr PairTable kForwardPairs = forward_pairs();
constexpr PairTable kReversePairs = reverse_pairs();

}  // namespace

void unpack_bases(const std::uint8_t* packed, std::int64_t begin, std::span<char> out) {
  const std::size_t size = out.size();
  std::size_t i = 0;
  const std::uint8_t* byte = packed + begin / 2;
  if (begin % 2 != 0 && size > 0) out[i++] = kForwardPairs[*byte++][1];
  for (; i + 2 <= size; i += 2) std::memcpy(&out[i], kForwardPairs[*byte++].data(), 2);
  if (i < size) out[i] = kForwardPairs[*byte][0];
}

void unpack_reverse_complement(const std::uint8_t* packed, std::int64_t length, std::int64_t begin,
                               std::span<char> out) {
  const std::size_t size = out.size();
  std::size_t i = 0;
  const std::int64_t last = length - 1 - begin;  // the base that comes first
  const std::uint8_t* byte = packed + last / 2;
  if (last % 2 == 0 && size > 0) out[i++] = kReversePairs[*byte--][1];
  for (; i + 2 <= size; i += 2) std::memcpy(&out[i], kReversePairs[*byte--].data(), 2);
  if (i < size) out[i] = kReversePairs[*byte][0];
}

}  // namespace longstrand::io
