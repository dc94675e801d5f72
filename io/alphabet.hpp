// Bases <-> token ids, in the vocabulary of HyenaDNA and Caduceus (12 tokens, one byte each).
//
// Lower case is folded and remembered as a soft mask, U is T. The other IUPAC codes (R Y S W K M B D H V) are
// treated by policy. Gaps ('-', '.'), stops ('*') and everything else are invalid: a model would silently
// read an alignment column or a protein as DNA, so the caller reports the position instead.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace longstrand::io {

inline constexpr std::uint8_t kCls = 0;
inline constexpr std::uint8_t kSep = 1;
inline constexpr std::uint8_t kBos = 2;
inline constexpr std::uint8_t kMask = 3;
inline constexpr std::uint8_t kPad = 4;
inline constexpr std::uint8_t kReserved = 5;
inline constexpr std::uint8_t kUnk = 6;
inline constexpr std::uint8_t kA = 7;
inline constexpr std::uint8_t kC = 8;
inline constexpr std::uint8_t kG = 9;
inline constexpr std::uint8_t kT = 10;
inline constexpr std::uint8_t kN = 11;
inline constexpr std::int64_t kVocabulary = 12;

// A, C, G or T
constexpr bool is_base(std::uint8_t token) { return token >= kA && token <= kT; }

// A <-> T, C <-> G; every other token is its own complement.
constexpr std::uint8_t complement(std::uint8_t token) {
  return is_base(token) ? static_cast<std::uint8_t>(kA + kT - token) : token;
}

// What an IUPAC code other than A C G T U N becomes: N, the unknown token, or an error.
enum class Ambiguous { n, unk, error };

// "n", "unk" or "error"; throws std::invalid_argument for anything else.
Ambiguous parse_ambiguous(std::string_view name);

class Alphabet {
 public:
  explicit Alphabet(Ambiguous policy = Ambiguous::n);

  // tokens[i] = id of bases[i]; soft_mask[i] = 1 where bases[i] is lower case, else 0 (an empty soft_mask is
  // not written). tokens, and soft_mask unless empty, hold at least bases.size() elements. Returns the
  // position of the first base that is invalid (or ambiguous, under Ambiguous::error), nothing if all are
  // good; the tokens before that position are right, those after it unspecified.
  std::optional<std::int64_t> tokenize(std::span<const char> bases, std::span<std::uint8_t> tokens,
                                       std::span<std::uint8_t> soft_mask) const;

  // One upper-case letter per token; '?' for ids that stand for no base.
  static std::string bases(std::span<const std::uint8_t> tokens);

 private:
  std::array<std::uint8_t, 256> token_of_;  // kInvalid where the byte is no base
};

}  // namespace longstrand::io
