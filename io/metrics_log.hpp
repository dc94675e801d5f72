#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "io/file_descriptor.hpp"

namespace longstrand::io {

// An append-only log of JSON lines, one object a training step: metrics.jsonl. A line is one write(2), so a
// reader following the file sees whole lines. Every object has an integer "step", and steps grow.
class MetricsLog {
 public:
  // Begins an empty log, or continues one after `resume_step`: lines of later steps and a torn last line,
  // which the interrupted run wrote past its last saved state, are cut off. A log that is absent is begun.
  // Throws std::runtime_error if the file cannot be opened or a line before that is no step's object.
  explicit MetricsLog(const std::string& path, std::optional<std::int64_t> resume_step = std::nullopt);

  // Numbers that JSON cannot hold (NaN, infinities) become null. Throws std::runtime_error on write errors.
  void append(const nlohmann::ordered_json& metrics);

  // Waits until the log is on the disk; to be called before the state it belongs to is saved.
  void sync() { file_.sync(); }

 private:
  void cut_after(std::int64_t step);

  FileDescriptor file_;
};

}  // namespace longstrand::io
