// White space in sequence lines.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>

namespace longstrand::io {

constexpr bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Copies text without its white space to out, which has room for all of it; returns the number of characters
// written. Lines without any, the usual case, go through one vectorised loop.
inline std::size_t copy_without_space(std::string_view text, char* out) {
  const char* in = text.data();
  const std::size_t size = text.size();
  unsigned char any_low = 0;
  for (std::size_t i = 0; i < size; ++i) {
    out[i] = in[i];
    any_low |= static_cast<unsigned char>(in[i]) <= ' ';
  }
  if (any_low == 0) return size;
  return static_cast<std::size_t>(std::remove_if(out, out + size, is_space) - out);
}

}  // namespace longstrand::io
