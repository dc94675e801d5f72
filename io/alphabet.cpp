#include "io/alphabet.hpp"

#include <cassert>
#include <stdexcept>

namespace longstrand::io {
namespace {

constexpr std::uint8_t kInvalid = 0xFF;
constexpr std::uint8_t kLowerCaseBit = 0x20;

void set_both_cases(std::array<std::uint8_t, 256>& table, std::string_view upper_case, std::uint8_t token) {
  for (const char letter : upper_case) {
    table[static_cast<std::uint8_t>(letter)] = token;
    table[static_cast<std::uint8_t>(letter) | kLowerCaseBit] = token;
  }
}

std::uint8_t ambiguous_token(Ambiguous policy) {
  switch (policy) {
    case Ambiguous::n:
      return kN;
    case Ambiguous::unk:
      return kUnk;
    case Ambiguous::error:
      break;
  }
  return kInvalid;
}

}  // namespace

Ambiguous parse_ambiguous(std::string_view name) {
  if (name == "n") return Ambiguous::n;
  if (name == "unk") return Ambiguous::unk;
  if (name == "error") return Ambiguous::error;
  throw std::invalid_argument("ambiguous bases can be treated as n, unk or error, not '" + std::string(name) +
                              "'");
}

Alphabet::Alphabet(Ambiguous policy) {
  token_of_.fill(kInvalid);
  set_both_cases(token_of_, "A", kA);
  set_both_cases(token_of_, "C", kC);
  set_both_cases(token_of_, "G", kG);
  set_both_cases(token_of_, "TU", kT);
  set_both_cases(token_of_, "N", kN);
  set_both_cases(token_of_, "RYSWKMBDHV", ambiguous_token(policy));
}

std::optional<std::int64_t> Alphabet::tokenize(std::span<const char> bases, std::span<std::uint8_t> tokens,
                                               std::span<std::uint8_t> soft_mask) const {
  assert(tokens.size() >= bases.size() && (soft_mask.empty() || soft_mask.size() >= bases.size()));
  std::uint8_t seen = 0;
  for (std::size_t i = 0; i < bases.size(); ++i) {
    tokens[i] = token_of_[static_cast<std::uint8_t>(bases[i])];
    seen |= tokens[i];
  }
  if (!soft_mask.empty()) {
    for (std::size_t i = 0; i < bases.size(); ++i) {
      soft_mask[i] = (static_cast<std::uint8_t>(bases[i]) & kLowerCaseBit) != 0;
    }
  }
  if ((seen & 0x80) == 0) return std::nullopt;
  std::int64_t position = 0;
  while (tokens[static_cast<std::size_t>(position)] != kInvalid) ++position;
  return position;
}

std::string Alphabet::bases(std::span<const std::uint8_t> tokens) {
  constexpr std::string_view kLetters = "???????ACGTN";
  std::string letters;
  letters.reserve(tokens.size());
  for (const std::uint8_t token : tokens) letters += token < kVocabulary ? kLetters[token] : '?';
  return letters;
}

}  // namespace longstrand::io
