#pragma once

#include <string>
#include <string_view>

namespace longstrand::io {

// The text as UTF-8. Record names may hold any bytes, but one invalid name makes h5py and JSON readers refuse
// the whole file: a text that is not UTF-8 is taken as Latin-1, in which every byte is a character.
std::string to_utf8(std::string_view text);

}  // namespace longstrand::io
