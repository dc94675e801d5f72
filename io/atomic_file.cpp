#include "io/atomic_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cassert>
#include <charconv>
#include <filesystem>
#include <span>
#include <stdexcept>

namespace longstrand::io {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kBufferBytes = 1 << 18;

bool is_device(const std::string& path) {
  std::error_code ignored;
  const auto status = fs::status(path, ignored);
  return fs::is_character_file(status) || fs::is_fifo(status) || fs::is_socket(status) ||
         fs::is_block_file(status);
}

// The open descriptor that a path names, or -1: renaming would replace the file behind it.
int descriptor_of(const std::string& path) {
  if (path.empty() || path == "-" || path == "/dev/stdout") return STDOUT_FILENO;
  if (path == "/dev/stderr") return STDERR_FILENO;
  for (const std::string_view folder : {"/dev/fd/", "/proc/self/fd/"}) {
    if (!path.starts_with(folder)) continue;
    int descriptor = -1;
    const char* const end = path.data() + path.size();
    const auto [rest, error] = std::from_chars(path.data() + folder.size(), end, descriptor);
    if (error == std::errc() && rest == end) return descriptor;
  }
  return -1;
}

}  // namespace

bool is_stream(const std::string& path) { return descriptor_of(path) >= 0 || is_device(path); }

AtomicFile::AtomicFile(const std::string& path) {
  buffer_.reserve(kBufferBytes);
  if (const int descriptor = descriptor_of(path); descriptor >= 0) {
    file_.emplace(::dup(descriptor), descriptor == STDOUT_FILENO ? "standard output" : path);
  } else if (is_device(path)) {
    file_.emplace(path, O_WRONLY);
  } else {
    destination_ = follow_link(path);
    require_not_directory(destination_);
    // The lock comes before the truncation, so that a second writer cannot empty the file of the first.
    file_.emplace(destination_ + ".partial", O_WRONLY | O_CREAT);
    file_->require_lock();
    file_->truncate(0);
    renames_ = true;
  }
}

AtomicFile::~AtomicFile() {
  if (file_ && renames_) {
    remove_quietly(file_->path());
  }
}

void AtomicFile::write(std::string_view text) {
  assert(file_ && "write after commit");
  if (buffer_.size() + text.size() > kBufferBytes) {
    flush();
  }
  if (text.size() > kBufferBytes) {
    file_->write(std::as_bytes(std::span(text)));
  } else {
    buffer_ += text;
  }
}

void AtomicFile::flush() {
  file_->write(std::as_bytes(std::span(buffer_)));
  buffer_.clear();
}

void AtomicFile::commit() {
  assert(file_ && "commit twice");
  flush();
  file_->sync();
  // Renamed before it is closed: closing gives the lock away, and with it the temporary name.
  if (renames_) {
    replace_file(file_->path(), destination_);
    renames_ = false;
  }
  file_->close();
  file_.reset();
}

void write_file(const std::string& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

}  // namespace longstrand::io
