#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

#include "fixtures.hpp"
#include "io/alphabet.hpp"

namespace longstrand::io {
namespace {

struct Tokenized {
  std::vector<std::uint8_t> tokens;
  std::vector<std::uint8_t> soft_mask;
  std::optional<std::int64_t> bad;
};

Tokenized tokenize(const std::string& bases, Ambiguous policy = Ambiguous::n) {
  Tokenized result;
  result.tokens.resize(bases.size());
  result.soft_mask.resize(bases.size());
  result.bad = Alphabet(policy).tokenize(bases, result.tokens, result.soft_mask);
  return result;
}

// Written from FACTS: ids of the HyenaDNA vocabulary; -1 for an ambiguity code, -2 for what is no base.
int expected_kind(unsigned char byte) {
  switch (byte | 0x20) {
    case 'a':
      return byte == 'A' || byte == 'a' ? 7 : -2;
    case 'c':
      return byte == 'C' || byte == 'c' ? 8 : -2;
    case 'g':
      return byte == 'G' || byte == 'g' ? 9 : -2;
    case 't':
    case 'u':
      return byte >= 'A' ? 10 : -2;
    case 'n':
      return byte >= 'A' ? 11 : -2;
    default:
      break;
  }
  const bool letter = (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z');
  return letter && std::string("ryswkmbdhv").find(static_cast<char>(byte | 0x20)) != std::string::npos ? -1
                                                                                                       : -2;
}

TEST(Alphabet, TreatsEveryByteAsThePolicySays) {
  for (const Ambiguous policy : {Ambiguous::n, Ambiguous::unk, Ambiguous::error}) {
    for (int byte = 0; byte < 256; ++byte) {
      const int kind = expected_kind(static_cast<unsigned char>(byte));
      const Tokenized result = tokenize(std::string(1, static_cast<char>(byte)), policy);
      const bool good = kind >= 0 || (kind == -1 && policy != Ambiguous::error);
      ASSERT_EQ(!result.bad.has_value(), good) << "byte " << byte;
      if (!good) continue;
      const int token = kind >= 0 ? kind : policy == Ambiguous::n ? 11 : 6;
      ASSERT_EQ(result.tokens[0], token) << "byte " << byte;
      ASSERT_EQ(result.soft_mask[0], byte >= 'a') << "byte " << byte;
    }
  }
}

// Common letters and codes take different loops; a code anywhere must not change the letters around it.
TEST(Alphabet, TokenizesLettersTheSameBesideACode) {
  const std::string bases = fixtures::random_bases(1000, 3, "ACGTUNacgtun");
  const Tokenized plain = tokenize(bases);
  for (const std::size_t at : {0, 1, 63, 64, 500, 999}) {
    std::string with_code = bases;
    with_code[at] = 'r';
    const Tokenized result = tokenize(with_code);
    ASSERT_FALSE(result.bad);
    for (std::size_t i = 0; i < bases.size(); ++i) {
      ASSERT_EQ(result.tokens[i], i == at ? kN : plain.tokens[i]) << i;
      ASSERT_EQ(result.soft_mask[i], i == at ? 1 : plain.soft_mask[i]) << i;
    }
  }
}

TEST(Alphabet, FindsTheFirstInvalidByte) {
  std::string bases = fixtures::random_bases(1000, 4);
  for (const std::int64_t at : {999, 500, 64, 63, 1, 0}) {
    bases[static_cast<std::size_t>(at)] = '-';
    EXPECT_EQ(tokenize(bases).bad, at);
  }
}

TEST(Alphabet, NeedsNoSoftMask) {
  std::vector<std::uint8_t> tokens(4);
  EXPECT_FALSE(Alphabet().tokenize(std::string("acGT"), tokens, {}));
  EXPECT_EQ(tokens, (std::vector<std::uint8_t>{kA, kC, kG, kT}));
}

TEST(Alphabet, GivesBasesBack) {
  EXPECT_EQ(Alphabet::bases(tokenize("acgtuNR").tokens), "ACGTTNN");
  EXPECT_EQ(Alphabet::bases(std::vector<std::uint8_t>{kPad, kUnk, kMask, 12, 255}), "?????");
}

TEST(Alphabet, ComplementsAsTheVocabularyDoes) {
  for (int token = 0; token < 16; ++token) {
    const auto id = static_cast<std::uint8_t>(token);
    EXPECT_EQ(complement(complement(id)), id);
    EXPECT_EQ(complement(id) == id, id < kA || id > kT) << token;
  }
  EXPECT_EQ(complement(kA), kT);
  EXPECT_EQ(complement(kC), kG);
}

TEST(Alphabet, NamesItsPolicies) {
  EXPECT_EQ(parse_ambiguous("n"), Ambiguous::n);
  EXPECT_EQ(parse_ambiguous("unk"), Ambiguous::unk);
  EXPECT_EQ(parse_ambiguous("error"), Ambiguous::error);
  EXPECT_THROW(parse_ambiguous("N"), std::invalid_argument);
}

}  // namespace
}  // namespace longstrand::io
