#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "io/atomic_file.hpp"

namespace longstrand::io {

// A tab-separated table with a header line, complete or absent like every AtomicFile ("-" is standard
// output). In text cells tab, line feed, carriage return and backslash become \t, \n, \r and \\, so that a
// row stays a row. Floating-point cells are the shortest text that reads back as the same number.
class TsvWriter {
 public:
  TsvWriter(const std::string& path, std::span<const std::string> columns);

  TsvWriter& cell(std::string_view text);
  TsvWriter& cell(std::int64_t value);
  TsvWriter& cell(double value);
  TsvWriter& cell(float value);
  void end_row();  // a row has as many cells as the header

  void flush() { file_.flush(); }
  void commit() { file_.commit(); }

 private:
  template <class T>
  TsvWriter& number(T value);
  void separate();

  AtomicFile file_;
  std::int64_t column_count_;
  std::int64_t cells_in_row_ = 0;
  std::string row_;
};

}  // namespace longstrand::io
