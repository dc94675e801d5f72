#include "pipelines/manifest.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <set>

#include "io/input_error.hpp"
#include "io/utf8.hpp"

namespace longstrand::pipelines {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kSplitColumns = {"path", "record", "record_index", "start",
                                                "end",  "label",  "split"};

// A table's lines as fields; the first is its header.
class TableReader {
 public:
  explicit TableReader(const std::string& path) : path_(path), file_(path) {
    if (!file_ || fs::is_directory(path))
      throw io::InputError(fmt::format("cannot open the table '{}'", path));
    if (!next()) throw io::InputError(fmt::format("'{}' is empty: expected a header line", path));
    header_ = fields_;
  }

  bool next() {
    for (std::string text; std::getline(file_, text);) {
      ++line_;
      if (!text.empty() && text.back() == '\r') text.pop_back();
      if (text.empty() || text[0] == '#') continue;
      split_into_fields(text);
      if (!header_.empty() && fields_.size() != header_.size()) {
        fail(fmt::format("{} columns where the header has {}", fields_.size(), header_.size()));
      }
      return true;
    }
    return false;
  }

  const std::vector<std::string>& header() const { return header_; }
  const std::string& field(std::size_t column) const {
    if (fields_[column].empty()) fail(fmt::format("empty {}", header_[column]));
    return fields_[column];
  }
  const std::string& field_or_empty(std::size_t column) const { return fields_[column]; }
  std::int64_t integer(std::size_t column) const {
    const auto& text = field(column);
    std::int64_t value = 0;
    const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || rest != text.data() + text.size() || value < 0) {
      fail(fmt::format("{} '{}' is not a whole number from 0", header_[column], text));
    }
    return value;
  }
  Split split(std::size_t column) const {
    const auto found = parse_split(field(column));
    if (!found) fail(fmt::format("split '{}': expected train, valid or test", fields_[column]));
    return *found;
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw io::InputError(fmt::format("'{}' line {}: {}", path_, line_, what));
  }

 private:
  void split_into_fields(std::string_view text) {
    fields_.clear();
    for (std::size_t begin = 0; begin <= text.size();) {
      const auto end = std::min(text.find('\t', begin), text.size());
      fields_.emplace_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
  }

  std::string path_;
  std::ifstream file_;
  std::int64_t line_ = 0;
  std::vector<std::string> header_;
  std::vector<std::string> fields_;
};

}  // namespace

std::string_view split_name(Split split) {
  switch (split) {
    case Split::train:
      return "train";
    case Split::valid:
      return "valid";
    case Split::test:
      return "test";
  }
  return {};
}

std::optional<Split> parse_split(std::string_view name) {
  for (const auto split : {Split::train, Split::valid, Split::test}) {
    if (name == split_name(split)) return split;
  }
  return std::nullopt;
}

std::int64_t Manifest::class_of(const std::string& label) const {
  const auto found = std::lower_bound(labels.begin(), labels.end(), label);
  return found != labels.end() && *found == label ? found - labels.begin() : -1;
}

Manifest read_manifest(const std::string& path) {
  TableReader table(path);
  const auto column = [&](const char* name) {
    return static_cast<std::size_t>(std::find(table.header().begin(), table.header().end(), name) -
                                    table.header().begin());
  };
  const auto columns = table.header().size();
  const auto path_column = column("path");
  const auto label_column = column("label");
  const auto split_column = column("split");
  if (path_column == columns || label_column == columns) {
    table.fail("expected a header with the columns path and label, separated by tabs");
  }

  Manifest manifest;
  std::set<std::string> paths;
  std::set<std::string> labels;
  const auto folder = fs::path(path).parent_path();
  while (table.next()) {
    auto& entry = manifest.entries.emplace_back();
    entry.path = (folder / table.field(path_column)).string();
    entry.label = table.field(label_column);
    if (io::to_utf8(entry.label) != entry.label) {
      table.fail("the label is not UTF-8; convert the file, as by: iconv -f latin1 -t utf8");
    }
    if (split_column < columns) entry.split = table.split(split_column);
    // One file under two names would be on both sides of a split.
    if (!paths.insert(fs::weakly_canonical(entry.path).string()).second)
      table.fail(fmt::format("path '{}' is listed twice", entry.path));
    labels.insert(entry.label);
  }
  if (manifest.entries.empty()) throw io::InputError(fmt::format("'{}' lists no files", path));
  manifest.labels.assign(labels.begin(), labels.end());
  return manifest;
}

SplitWriter::SplitWriter(const std::string& path) : file_(path) {
  file_.write(fmt::format("{}\n", fmt::join(kSplitColumns, "\t")));
}

void SplitWriter::write(const SplitWindow& window) {
  if (window.path.find_first_of("\t\r\n") != std::string::npos || window.path.starts_with('#')) {
    throw io::InputError(fmt::format(
        "'{}' cannot be listed in split.tsv: its path has a tab or an end of line in it, or begins with #",
        window.path));
  }
  file_.write(fmt::format("{}\t{}\t{}\t{}\t{}\t{}\t{}\n", window.path, window.record, window.record_index,
                          window.start, window.end, window.label, split_name(window.split)));
}

void read_split(const std::string& path, const std::function<void(const SplitWindow&)>& take) {
  TableReader table(path);
  if (table.header() != kSplitColumns) {
    table.fail(fmt::format("expected the header {}, as finetune writes it", fmt::join(kSplitColumns, " ")));
  }
  while (table.next()) {
    const SplitWindow window{.path = table.field(0),
                             .record = table.field_or_empty(1),  // FASTA has records without a name
                             .record_index = table.integer(2),
                             .start = table.integer(3),
                             .end = table.integer(4),
                             .label = table.field(5),
                             .split = table.split(6)};
    if (window.end < window.start)
      table.fail(fmt::format("end {} before start {}", window.end, window.start));
    take(window);
  }
}

}  // namespace longstrand::pipelines
