#include "pipelines/window_layout.hpp"

#include <algorithm>

#include "src/seeded_hash.hpp"

namespace longstrand::pipelines {
namespace {

std::string_view without_mate_number(std::string_view name) {
  if (name.ends_with("/1") || name.ends_with("/2")) name.remove_suffix(2);
  return name;
}

Split draw_split(std::string_view name, const SplitRule& rule) {
  const double draw = unit_interval(seeded_hash(rule.seed, without_mate_number(name)));
  return draw < rule.test ? Split::test : draw < rule.test + rule.valid ? Split::valid : Split::train;
}

}  // namespace

std::vector<SplitRegion> split_record(std::string_view name, std::int64_t length, const WindowRule& windows,
                                      const SplitRule& split) {
  const auto bases = [&](double fraction) {
    return static_cast<std::int64_t>(fraction * static_cast<double>(length));
  };
  const std::int64_t test_begin = length - bases(split.test);
  const std::int64_t valid_begin = test_begin - bases(split.valid);
  const auto holds_a_window = [&](double fraction, std::int64_t begin, std::int64_t end) {
    return fraction == 0 || end - begin >= windows.window;
  };
  if (windows.window == 0 || valid_begin < windows.window ||
      !holds_a_window(split.valid, valid_begin, test_begin) ||
      !holds_a_window(split.test, test_begin, length)) {
    return {{0, length, draw_split(name, split)}};
  }
  std::vector<SplitRegion> regions = {{0, valid_begin, Split::train},
                                      {valid_begin, test_begin, Split::valid},
                                      {test_begin, length, Split::test}};
  std::erase_if(regions, [](const SplitRegion& region) { return region.begin == region.end; });
  return regions;
}

std::vector<WindowPlace> windows_of(const SplitRegion& region, const WindowRule& rule) {
  const std::int64_t length = region.end - region.begin;
  const std::int64_t window = rule.window > 0 ? rule.window : std::max<std::int64_t>(length, 1);
  const std::int64_t stride = rule.stride > 0 ? rule.stride : window;
  std::vector<WindowPlace> places;
  for (std::int64_t begin = region.begin; begin < region.end; begin += stride) {
    const std::int64_t end = std::min(begin + window, region.end);
    if (end - begin < window && 2 * (end - begin) < window && begin > region.begin) break;
    places.push_back({begin, end});
    if (end == region.end) break;
  }
  return places;
}

}  // namespace longstrand::pipelines
