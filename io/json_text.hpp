#pragma once

#include <string>

namespace longstrand::io {

// A nlohmann::json value as text, on one line without `indent`. Names come from files and the command line
// and may hold any bytes: what is not UTF-8, where dump() would throw, becomes U+FFFD.
template <class Json>
std::string json_text(const Json& value, int indent = -1) {
  return value.dump(indent, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

}  // namespace longstrand::io
