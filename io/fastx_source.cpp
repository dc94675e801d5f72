#include "io/fastx_source.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "io/input_error.hpp"
#include "io/white_space.hpp"

namespace longstrand::io {
namespace {

constexpr std::size_t kSkippedAtOnce = std::size_t{1} << 16;

bool is_quality(char c) { return c >= '!' && c <= '~'; }

std::string printable(char c) {
  return c > ' ' && c <= '~' ? fmt::format("'{}'", c)
                             : fmt::format("byte 0x{:02x}", static_cast<unsigned char>(c));
}

}  // namespace

FastxSource::FastxSource(ByteStream input, SequenceKind kind) : input_(std::move(input)), kind_(kind) {}

bool FastxSource::next_record(RecordInfo& record) {
  skip_record();
  if (!find_header()) return false;
  read_header(record);
  return true;
}

// Stops at the first character of a header line; false at the end of the file.
bool FastxSource::find_header() {
  const char mark = kind_ == SequenceKind::fasta ? '>' : '@';
  for (;;) {
    const std::string_view bytes = input_.peek();
    if (bytes.empty()) return false;
    const char first = bytes.front();
    if (first == mark) return true;
    if (!is_space(first)) fail(fmt::format("expected '{}', found {}", mark, printable(first)));
    if (first == '\n') ++line_number_;
    input_.consume(1);
  }
}

void FastxSource::read_header(RecordInfo& record) {
  input_.read_line(line_);
  std::string_view line = line_;
  line.remove_prefix(1);
  if (line.find('\r') != std::string_view::npos) {
    fail("a carriage return without a line feed; convert the line ends");
  }
  // As in samtools, blanks between the mark and the name do not count.
  while (!line.empty() && is_space(line.front())) line.remove_prefix(1);
  const auto name_end = std::find_if(line.begin(), line.end(), is_space);
  auto description = std::find_if_not(name_end, line.end(), is_space);
  record.clear();
  record.name.assign(line.begin(), name_end);
  record.description.assign(description, line.end());
  record_name_ = record.name;
  ++line_number_;
  sequence_length_ = 0;
  in_sequence_ = true;
  at_line_start_ = true;
  after_blank_line_ = false;
  quality_pending_ = kind_ == SequenceKind::fastq;
}

std::int64_t FastxSource::read_bases(std::span<char> out) {
  std::size_t filled = 0;
  while (in_sequence_ && filled < out.size()) {
    const std::string_view bytes = input_.peek();
    if (bytes.empty()) {
      end_sequence_at_eof();
      break;
    }
    if (at_line_start_ && !begin_sequence_line(bytes.front())) continue;
    const std::string_view piece = bytes.substr(0, out.size() - filled);
    const std::size_t newline = piece.find('\n');
    std::string_view line = piece.substr(0, newline);
    const bool complete = newline != std::string_view::npos;
    input_.consume(line.size() + (complete ? 1 : 0));
    if (complete) {
      ++line_number_;
      at_line_start_ = true;
      if (line.ends_with('\r')) line.remove_suffix(1);
    }
    filled += copy_without_space(line, out.data() + filled);
  }
  sequence_length_ += static_cast<std::int64_t>(filled);
  return static_cast<std::int64_t>(filled);
}

// Looks at the first character of a line of the record. True if bases follow; otherwise the character, or the
// line, has been dealt with.
bool FastxSource::begin_sequence_line(char first) {
  if (first == '\n' || first == '\r') {
    input_.consume(1);
    if (first == '\n') ++line_number_;
    after_blank_line_ = true;
    return false;
  }
  if (kind_ == SequenceKind::fasta) {
    if (first == '>') {
      in_sequence_ = false;
      return false;
    }
    if (after_blank_line_) {
      fail(fmt::format("expected '>' after a blank line, found {}; remove blank lines inside sequences",
                       printable(first)));
    }
  } else if (first == '+') {
    input_.read_line(line_);
    ++line_number_;
    in_sequence_ = false;
    return false;
  } else if (first == '@') {
    fail("a new record begins before the quality of the last");
  }
  at_line_start_ = false;
  return true;
}

void FastxSource::end_sequence_at_eof() {
  if (kind_ == SequenceKind::fastq) fail("truncated: the file ends before the quality");
  in_sequence_ = false;
}

void FastxSource::skip_record() {
  if (in_sequence_) {
    skipped_.resize(kSkippedAtOnce);
    while (read_bases(skipped_) > 0) continue;
  }
  if (quality_pending_) skip_quality();
  quality_pending_ = false;
}

void FastxSource::skip_quality() {
  std::int64_t missing = sequence_length_;
  bool line_complete = true;
  while (missing > 0 || !line_complete) {
    const std::string_view bytes = input_.peek();
    if (bytes.empty()) {
      if (missing > 0) fail("truncated: the file ends inside the quality");
      return;
    }
    const std::size_t newline = bytes.find('\n');
    line_complete = newline != std::string_view::npos;
    const std::string_view line = bytes.substr(0, newline);
    const auto count = std::count_if(line.begin(), line.end(), is_quality);
    if (count < std::ssize(line)) {
      const auto bad =
          std::find_if(line.begin(), line.end(), [](char c) { return !is_quality(c) && !is_space(c); });
      if (bad != line.end())
        fail(fmt::format("{} in the quality; only '!' to '~' are allowed", printable(*bad)));
    }
    missing -= count;
    if (missing < 0) fail(fmt::format("the quality is longer than the {} bases", sequence_length_));
    input_.consume(line.size() + (line_complete ? 1 : 0));
    if (line_complete) ++line_number_;
  }
}

void FastxSource::fail(std::string_view what) const {
  const std::string record = record_name_.empty() ? "" : fmt::format(" (record '{}')", record_name_);
  throw InputError(fmt::format("{}: line {}{}: {}", input_.path(), line_number_, record, what));
}

}  // namespace longstrand::io
