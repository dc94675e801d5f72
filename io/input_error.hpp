// The exception for input that cannot be used as asked: a missing, malformed or truncated file, a region that
// does not exist. what() is one line: what failed, where (file, record, line or position) and what to do.
#pragma once

#include <stdexcept>

namespace longstrand::io {

class InputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace longstrand::io
