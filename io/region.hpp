// Parts of named sequences: as samtools writes them on a command line, or from a file.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace longstrand::io {

struct Region {
  std::string name;
  std::int64_t begin = 0;  // 0-based
  std::int64_t end = -1;   // one past the last base; -1: the end of the sequence
};

using NameTest = std::function<bool(const std::string&)>;

// chr, chr:start, chr:start-, chr:start-end, chr:-end; positions 1-based inclusive, commas allowed; {name} or
// {name}:... for names that hold colons. Without braces a text is taken for a whole name if is_name knows it,
// and for name:range if is_name knows that name. Throws InputError if neither or both are known, or if the
// range is empty or malformed.
Region parse_region(std::string_view text, const NameTest& is_name);

// One region a line. A path that ends in .bed or .bed.gz is BED (0-based, half-open; header, track and
// browser lines skipped); any other holds tab-separated name, begin and optionally end, 1-based inclusive (no
// end: one base). Lines that start with '#' and blank lines are skipped. Throws InputError naming path and
// line.
std::vector<Region> read_regions_file(const std::string& path);

// Length of a named sequence, -1 if there is none of that name.
using LengthOf = std::function<std::int64_t(const std::string&)>;

// The regions of texts, then those of file (unless empty), checked against the sequences of path: the name
// must be known and the region lie within the sequence, and file must hold regions. All ends are resolved.
std::vector<Region> resolve_regions(const std::vector<std::string>& texts, const std::string& file,
                                    const std::string& path, const LengthOf& length_of);

}  // namespace longstrand::io
