#include "io/atomic_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cassert>
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

}  // namespace

AtomicFile::AtomicFile(const std::string& path) {
  buffer_.reserve(kBufferBytes);
  if (path.empty() || path == "-") {
    file_.emplace(::dup(STDOUT_FILENO), "standard output");
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
