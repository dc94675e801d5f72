#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace longstrand::pipelines {

/// How far a command is, on standard error: a bar on a terminal, else a log line every ten seconds, and
/// nothing with --quiet. One thread at a time.
class Progress {
 public:
  /// `label` names the work; `fraction_before` of it was done by an earlier run, where the work is resumed.
  explicit Progress(std::string label, double fraction_before = 0);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  /// Erases the bar.
  ~Progress();

  static constexpr double kUnknown = -1;
  /// `bases` were read since construction; `fraction` of all work is done, in [0, 1], or kUnknown; `detail`
  /// is shown beside, for example a loss.
  void update(std::int64_t bases, double fraction = kUnknown, std::string_view detail = {});

 private:
  using Clock = std::chrono::steady_clock;

  std::string line(double seconds, std::int64_t bases, double fraction, std::string_view detail) const;

  std::string label_;
  double fraction_before_;
  bool shown_;
  bool terminal_;
  bool drawn_ = false;
  Clock::time_point start_;
  Clock::time_point last_;
};

/// Three digits and the prefix of a unit that follows: "950 ", "12.3 k", "4.56 M".
std::string with_unit_prefix(double value);

}  // namespace longstrand::pipelines
