#include <gtest/gtest.h>

#include "io/utf8.hpp"

namespace longstrand::io {
namespace {

TEST(Utf8, ValidTextStaysAndOtherBytesAreLatin1) {
  const struct {
    std::string text;
    std::string expected;
    const char* why;
  } cases[] = {
      {"", "", "nothing"},
      {"chr1", "chr1", "ASCII"},
      {"\u00e9 \u20ac \U0001F9EC", "\u00e9 \u20ac \U0001F9EC", "two, three and four bytes"},
      {"\xF4\x8F\xBF\xBF", "\xF4\x8F\xBF\xBF", "the last code point"},
      {"caf\xE9", "caf\u00e9", "Latin-1"},
      {"\xC3", "\u00c3", "a sequence cut short"},
      {"\xC0\x80", "\u00c0\u0080", "an overlong NUL"},
      {"\xE0\x80\x80", "\u00e0\u0080\u0080", "overlong, three bytes"},
      {"\xED\xA0\x80", "\u00ed\u00a0\u0080", "a surrogate"},
      {"\xF4\x90\x80\x80", "\u00f4\u0090\u0080\u0080", "above U+10FFFF"},
      {"\u00e9\xFF", "\u00c3\u00a9\u00ff", "one bad byte decides for all"},
  };
  for (const auto& test_case : cases) {
    EXPECT_EQ(to_utf8(test_case.text), test_case.expected) << test_case.why;
  }
}

}  // namespace
}  // namespace longstrand::io
