#include "io/utf8.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace longstrand::io {
namespace {

bool is_ascii(char c) { return static_cast<unsigned char>(c) < 0x80; }

// Length in bytes of the well-formed UTF-8 sequence that the text starts with, 0 if there is none (Unicode
// 15, table 3-7: no overlong forms, no surrogates, nothing above U+10FFFF).
std::size_t sequence_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) {
    return 1;
  }
  const std::size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < length) {
    return 0;
  }
  std::uint32_t code = lead & (0xFFU >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) {
      return 0;
    }
    code = code << 6 | (byte(i) & 0x3FU);
  }
  const bool overlong = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
  const bool surrogate = code >= 0xD800 && code < 0xE000;
  return overlong || surrogate || code > 0x10FFFF ? 0 : length;
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t length = sequence_length(text);
    if (length == 0) {
      return false;
    }
    text.remove_prefix(length);
  }
  return true;
}

}  // namespace

std::string to_utf8(std::string_view text) {
  if (std::all_of(text.begin(), text.end(), is_ascii) || is_utf8(text)) {
    return std::string(text);
  }
  std::string result;
  for (const char c : text) {
    if (is_ascii(c)) {
      result += c;
    } else {
      const auto code = static_cast<unsigned char>(c);
      result += static_cast<char>(0xC0 | code >> 6);
      result += static_cast<char>(0x80 | (code & 0x3F));
    }
  }
  return result;
}

}  // namespace longstrand::io
