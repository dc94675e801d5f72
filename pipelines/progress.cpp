#include "pipelines/progress.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "pipelines/logging.hpp"

namespace longstrand::pipelines {
namespace {

constexpr std::chrono::milliseconds kRedraw_ms{200};
constexpr std::chrono::seconds kLogLine_s{10};
constexpr int kBarCells = 24;

std::string bar(double fraction) {
  const int full = std::clamp(static_cast<int>(fraction * kBarCells), 0, kBarCells);
  return fmt::format(" [{:=<{}}{: <{}}]", "", full, "", kBarCells - full);
}

}  // namespace

std::string with_unit_prefix(double value) {
  for (const char* prefix : {"", "k", "M", "G"}) {
    if (value < 999.5) return fmt::format("{:.3g} {}", value, prefix);
    value /= 1000;
  }
  return fmt::format("{:.3g} T", value);
}

Progress::Progress(std::string label, double fraction_before)
    : label_(std::move(label)),
      fraction_before_(fraction_before),
      shown_(spdlog::should_log(spdlog::level::info)),
      terminal_(stderr_is_terminal()),
      start_(Clock::now()),
      last_(start_) {}

Progress::~Progress() {
  if (drawn_) std::fputs("\r\x1b[K", stderr);
}

void Progress::update(std::int64_t bases, double fraction, std::string_view detail) {
  const auto now = Clock::now();
  if (!shown_ || now - last_ < (terminal_ ? Clock::duration(kRedraw_ms) : Clock::duration(kLogLine_s)))
    return;
  last_ = now;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  if (!terminal_) {
    spdlog::info("{}", line(seconds, bases, fraction, detail));
    return;
  }
  fmt::print(stderr, "\r\x1b[K{}", line(seconds, bases, fraction, detail));
  std::fflush(stderr);
  drawn_ = true;
}

std::string Progress::line(double seconds, std::int64_t bases, double fraction,
                           std::string_view detail) const {
  std::string text = label_;
  if (fraction >= 0) text += fmt::format("{} {:3.0f} %", terminal_ ? bar(fraction) : "", 100 * fraction);
  text += fmt::format("  {}bases/s", with_unit_prefix(static_cast<double>(bases) / seconds));
  if (!detail.empty()) text += fmt::format("  {}", detail);
  if (fraction > fraction_before_) {
    const double left = seconds * (1 - fraction) / (fraction - fraction_before_);
    text += fmt::format("  {:%H:%M:%S} left", std::chrono::seconds(static_cast<std::int64_t>(left)));
  }
  return text;
}

}  // namespace longstrand::pipelines
