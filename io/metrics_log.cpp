#include "io/metrics_log.hpp"

#include <fcntl.h>
#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace longstrand::io {
namespace {

std::optional<std::int64_t> step_of(const std::string& line) {
  const auto object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object() || !object.contains("step") || !object["step"].is_number_integer()) {
    return std::nullopt;
  }
  return object["step"].get<std::int64_t>();
}

}  // namespace

MetricsLog::MetricsLog(const std::string& path, std::optional<std::int64_t> resume_step)
    : file_(path, O_WRONLY | O_CREAT | O_APPEND) {
  if (resume_step) {
    cut_after(*resume_step);
  } else {
    file_.truncate(0);
  }
}

void MetricsLog::append(const nlohmann::ordered_json& metrics) {
  const auto line = metrics.dump() + '\n';
  file_.write(std::as_bytes(std::span(line)));
}

void MetricsLog::cut_after(std::int64_t step) {
  std::ifstream lines(file_.path());
  std::int64_t keep_bytes = 0;
  std::int64_t line_number = 0;
  for (std::string line; std::getline(lines, line) && !lines.eof();) {  // eof: no newline, a torn line
    ++line_number;
    const auto found = step_of(line);
    if (!found) {
      throw std::runtime_error(fmt::format(
          "'{}' line {} is not the metrics of a step; repair or remove the file", file_.path(), line_number));
    }
    if (*found > step) {
      break;
    }
    keep_bytes += std::ssize(line) + 1;
  }
  file_.truncate(keep_bytes);
}

}  // namespace longstrand::io
