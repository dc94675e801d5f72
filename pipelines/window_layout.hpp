// Which windows of a record are trained on, validated on and tested on, such that no base is in two of these
// parts.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "pipelines/manifest.hpp"

namespace longstrand::pipelines {

struct WindowRule {
  std::int64_t window = 0;  // bases; 0: the whole record is one window
  std::int64_t stride = 0;  // between the starts of neighbours; 0: window
};

struct SplitRule {
  double valid = 0;  // fractions in [0, 1) of every record, or of the records
  double test = 0;
  std::uint64_t seed = 0;
};

/// A stretch of a record that belongs to one part.
struct SplitRegion {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  Split split = Split::train;
};

/// Cuts a record into train, then valid, then test, at least a window each. Where a part would be shorter
/// than a window, and where windows are whole records, the record as a whole goes to one part, drawn by the
/// hash of its name without a read pair's /1 or /2: both mates of a pair, and a record that occurs twice,
/// share a part.
std::vector<SplitRegion> split_record(std::string_view name, std::int64_t length, const WindowRule& windows,
                                      const SplitRule& split);

struct WindowPlace {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

/// The windows of a region, from its begin on. The last one may be shorter; if it is shorter than half a
/// window it is left out, unless it is the only one.
std::vector<WindowPlace> windows_of(const SplitRegion& region, const WindowRule& rule);

}  // namespace longstrand::pipelines
