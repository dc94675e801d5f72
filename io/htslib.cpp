#include "io/htslib.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <htslib/hts_log.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <mutex>

#include "io/input_error.hpp"
#include "io/standard_input.hpp"

namespace longstrand::io {
namespace {

void silence_htslib() {
  static std::once_flag once;
  std::call_once(once, [] { hts_set_log_level(HTS_LOG_OFF); });
}

[[noreturn]] void fail_to_open(const std::string& path, int error) {
  throw InputError(fmt::format("{}: cannot be opened: {}", path, std::strerror(error)));
}

}  // namespace

HFilePtr open_local_file(const std::string& path) {
  silence_htslib();
  const int descriptor = path == "-" ? open_standard_input() : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail_to_open(path, errno);
  struct stat status {};
  if (fstat(descriptor, &status) == 0 && S_ISDIR(status.st_mode)) {
    close(descriptor);
    fail_to_open(path, EISDIR);
  }
  HFilePtr file(hdopen(descriptor, "r"));
  if (!file) {
    const int error = errno;
    close(descriptor);
    fail_to_open(path, error);
  }
  return file;
}

std::string local_name(const std::string& path) { return path.starts_with('/') ? path : "./" + path; }

htsFormat detect_format(hFILE* file, const std::string& path) {
  htsFormat format{};
  if (hts_detect_format(file, &format) < 0) {
    throw InputError(fmt::format("{}: cannot be read: {}", path, std::strerror(herrno(file))));
  }
  return format;
}

std::string describe(const htsFormat& format) {
  const MallocString text(hts_format_description(&format));
  return text ? text.get() : "data of an unknown format";
}

}  // namespace longstrand::io
