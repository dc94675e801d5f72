#include "io/region.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <optional>

#include "io/byte_stream.hpp"
#include "io/input_error.hpp"

namespace longstrand::io {
namespace {

struct Range {
  std::int64_t begin = 0;
  std::int64_t end = -1;
};

// Decimal digits, with commas anywhere between them; nothing if there is anything else, or too large a
// number.
std::optional<std::int64_t> parse_position(std::string_view text) {
  constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max();
  if (text.empty() || text.front() == ',' || text.back() == ',') return std::nullopt;
  std::int64_t value = 0;
  for (const char c : text) {
    if (c == ',') continue;
    if (c < '0' || c > '9' || value > (kLargest - 9) / 10) return std::nullopt;
    value = 10 * value + (c - '0');
  }
  return value;
}

// start, start-, start-end or -end, 1-based inclusive; nothing if text has another form. Emptiness is not
// checked.
std::optional<Range> parse_range(std::string_view text) {
  const std::size_t dash = text.find('-');
  const std::string_view first = text.substr(0, dash);
  const std::string_view last = dash == std::string_view::npos ? std::string_view{} : text.substr(dash + 1);
  if (first.empty() && last.empty()) return std::nullopt;
  Range range;
  if (!first.empty()) {
    const auto begin = parse_position(first);
    if (!begin) return std::nullopt;
    range.begin = *begin - 1;
  }
  if (!last.empty()) {
    const auto end = parse_position(last);
    if (!end) return std::nullopt;
    range.end = *end;
  }
  return range;
}

Region make_region(std::string_view text, std::string_view name, const Range& range) {
  if (range.begin < 0) throw InputError(fmt::format("region '{}': positions begin at 1", text));
  if (range.end != -1 && range.end <= range.begin) {
    throw InputError(fmt::format("region '{}': the end lies before the start", text));
  }
  return {std::string(name), range.begin, range.end};
}

Region parse_braced_region(std::string_view text, const NameTest& is_name) {
  const std::size_t close = text.rfind('}');
  const std::string_view rest = close == std::string_view::npos ? "?" : text.substr(close + 1);
  const auto range = rest.empty()          ? Range{}
                     : rest.front() == ':' ? parse_range(rest.substr(1))
                                           : std::nullopt;
  if (!range) throw InputError(fmt::format("region '{}': expected {{name}} or {{name}}:start-end", text));
  const std::string_view name = text.substr(1, close - 1);
  if (!is_name(std::string(name))) {
    throw InputError(fmt::format("region '{}': no sequence is named '{}'", text, name));
  }
  return make_region(text, name, *range);
}

using Columns = std::vector<std::string_view>;

Columns split_at_tabs(std::string_view line) {
  Columns columns;
  for (std::size_t tab = line.find('\t'); tab != std::string_view::npos; tab = line.find('\t')) {
    columns.push_back(line.substr(0, tab));
    line.remove_prefix(tab + 1);
  }
  columns.push_back(line);
  return columns;
}

// BED columns may also stand between runs of blanks, in a line without tabs.
Columns split_bed(std::string_view line) {
  if (line.find('\t') != std::string_view::npos) return split_at_tabs(line);
  Columns columns;
  for (std::size_t begin = line.find_first_not_of(' '); begin != std::string_view::npos;) {
    const std::size_t end = std::min(line.find(' ', begin), line.size());
    columns.push_back(line.substr(begin, end - begin));
    begin = line.find_first_not_of(' ', end);
  }
  return columns;
}

bool is_bed_header(std::string_view line) {
  const std::string_view word = line.substr(0, line.find_first_of(" \t"));
  return word == "track" || word == "browser";
}

// Nothing if the columns do not hold what the format asks for.
std::optional<Region> parse_bed_columns(const Columns& columns) {
  if (columns.size() < 3) return std::nullopt;
  const auto begin = parse_position(columns[1]);
  const auto end = parse_position(columns[2]);
  if (!begin || !end || *end <= *begin) return std::nullopt;
  return Region{std::string(columns[0]), *begin, *end};
}

std::optional<Region> parse_tab_columns(const Columns& columns) {
  if (columns.size() < 2) return std::nullopt;
  const auto begin = parse_position(columns[1]);
  const auto end = columns.size() < 3 ? begin : parse_position(columns[2]);
  if (!begin || !end || *begin < 1 || *end < *begin) return std::nullopt;
  return Region{std::string(columns[0]), *begin - 1, *end};
}

}  // namespace

Region parse_region(std::string_view text, const NameTest& is_name) {
  if (text.starts_with('{')) return parse_braced_region(text, is_name);
  const bool whole = is_name(std::string(text));
  const std::size_t colon = text.rfind(':');
  std::optional<Range> range;
  std::string_view name = text;
  if (colon != std::string_view::npos && is_name(std::string(text.substr(0, colon)))) {
    name = text.substr(0, colon);
    range = parse_range(text.substr(colon + 1));
    if (!range && !whole) throw InputError(fmt::format("region '{}': expected {}:start-end", text, name));
  }
  if (range && whole) {
    throw InputError(
        fmt::format("region '{}' is both a sequence and a part of '{}'; write {{{}}} or {{{}}}:{}", text,
                    name, text, name, text.substr(colon + 1)));
  }
  if (range) return make_region(text, name, *range);
  if (whole) return {std::string(text), 0, -1};
  throw InputError(fmt::format("region '{}': no sequence has this name", text));
}

std::vector<Region> read_regions_file(const std::string& path) {
  const bool bed = path.ends_with(".bed") || path.ends_with(".bed.gz");
  ByteStream input(open_local_file(path), path, 0);
  std::vector<Region> regions;
  std::string line;
  for (std::int64_t line_number = 1; input.read_line(line); ++line_number) {
    if (line.starts_with('#') || line.find_first_not_of(" \t") == std::string::npos) continue;
    if (bed && is_bed_header(line)) continue;
    const auto region = bed ? parse_bed_columns(split_bed(line)) : parse_tab_columns(split_at_tabs(line));
    if (!region) {
      throw InputError(fmt::format("{}: line {}: expected {}", path, line_number,
                                   bed ? "name, start and end, 0-based half-open, start < end"
                                       : "name, start and end in tabs, 1-based inclusive"));
    }
    regions.push_back(*region);
  }
  return regions;
}

std::vector<Region> resolve_regions(const std::vector<std::string>& texts, const std::string& file,
                                    const std::string& path, const LengthOf& length_of) {
  std::vector<Region> regions;
  const NameTest is_name = [&](const std::string& name) { return length_of(name) >= 0; };
  try {
    for (const std::string& text : texts) regions.push_back(parse_region(text, is_name));
  } catch (const InputError& error) {
    throw InputError(fmt::format("{}: {}", path, error.what()));
  }
  if (!file.empty()) {
    auto more = read_regions_file(file);
    if (more.empty()) throw InputError(fmt::format("{}: holds no regions", file));
    std::move(more.begin(), more.end(), std::back_inserter(regions));
  }
  for (Region& region : regions) {
    const std::int64_t length = length_of(region.name);
    if (length < 0)
      throw InputError(
          fmt::format("{}: no sequence is named '{}' (asked for by {})", path, region.name, file));
    if (region.end == -1) region.end = length;
    if (region.begin >= length || region.end > length) {
      throw InputError(fmt::format("{}: region {}:{}-{} reaches past the end of '{}', which has {} bases",
                                   path, region.name, region.begin + 1, region.end, region.name, length));
    }
  }
  return regions;
}

}  // namespace longstrand::io
