#include "io/tsv_writer.hpp"

#include <array>
#include <cassert>
#include <charconv>

namespace longstrand::io {

TsvWriter::TsvWriter(const std::string& path, std::span<const std::string> columns)
    : file_(path), column_count_(std::ssize(columns)) {
  for (const auto& column : columns) {
    cell(column);
  }
  end_row();
}

TsvWriter& TsvWriter::cell(std::string_view text) {
  separate();
  for (const char c : text) {
    switch (c) {
      case '\t':
        row_ += "\\t";
        break;
      case '\n':
        row_ += "\\n";
        break;
      case '\r':
        row_ += "\\r";
        break;
      case '\\':
        row_ += "\\\\";
        break;
      default:
        row_ += c;
    }
  }
  return *this;
}

TsvWriter& TsvWriter::cell(std::int64_t value) { return number(value); }
TsvWriter& TsvWriter::cell(double value) { return number(value); }
TsvWriter& TsvWriter::cell(float value) { return number(value); }

template <class T>
TsvWriter& TsvWriter::number(T value) {
  separate();
  std::array<char, 32> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  row_.append(text.data(), end);
  return *this;
}

void TsvWriter::separate() {
  if (cells_in_row_ > 0) {
    row_ += '\t';
  }
  ++cells_in_row_;
}

void TsvWriter::end_row() {
  assert(cells_in_row_ == column_count_);
  row_ += '\n';
  file_.write(row_);
  row_.clear();
  cells_in_row_ = 0;
}

}  // namespace longstrand::io
