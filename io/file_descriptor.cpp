#include "io/file_descriptor.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "io/stop.hpp"

namespace longstrand::io {
namespace {

[[noreturn]] void fail(const char* what, const std::string& path, int error) {
  throw std::runtime_error(
      fmt::format("cannot {} '{}': {}", what, path, std::generic_category().message(error)));
}

std::span<const std::byte> rest(std::span<const std::byte> bytes, ssize_t done) {
  return bytes.subspan(static_cast<std::size_t>(done));
}

}  // namespace

FileDescriptor::FileDescriptor(std::string path, int flags, mode_t mode) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), flags | O_CLOEXEC, mode);
  if (descriptor_ < 0) {
    fail((flags & O_CREAT) != 0 ? "create" : "open", path_, errno);
  }
}

FileDescriptor::FileDescriptor(FileDescriptor&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

FileDescriptor::~FileDescriptor() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
  }
}

void FileDescriptor::write(std::span<const std::byte> bytes) {
  const bool waits = may_wait(descriptor_);
  while (!bytes.empty()) {
    auto part = bytes;
    if (waits) {
      wait_for_room();
      part = bytes.first(std::min<std::size_t>(bytes.size(), PIPE_BUF));  // so much does not wait now
    }
    const ssize_t done = ::write(descriptor_, part.data(), part.size());
    if (done >= 0) {
      bytes = rest(bytes, done);
    } else if (errno != EINTR) {
      fail("write", path_, errno);
    }
  }
}

void FileDescriptor::wait_for_room() const {
  std::array<pollfd, 2> waiting{{{descriptor_, POLLOUT, 0}, {stop_descriptor(), POLLIN, 0}}};
  while (::poll(waiting.data(), waiting.size(), /*timeout=*/-1) < 0) {
    if (errno != EINTR) fail("write", path_, errno);
  }
  if (waiting[0].revents == 0) {
    throw std::runtime_error(fmt::format("interrupted; '{}' is full, and nobody reads it", path_));
  }
}

void FileDescriptor::write_at(std::span<const std::byte> bytes, std::int64_t offset) {
  while (!bytes.empty()) {
    const ssize_t done = ::pwrite(descriptor_, bytes.data(), bytes.size(), offset);
    if (done >= 0) {
      bytes = rest(bytes, done);
      offset += done;
    } else if (errno != EINTR) {
      fail("write", path_, errno);
    }
  }
}

std::int64_t FileDescriptor::read_at(std::span<std::byte> bytes, std::int64_t offset) const {
  std::int64_t total = 0;
  while (total < std::ssize(bytes)) {
    const auto part = bytes.subspan(static_cast<std::size_t>(total));
    const ssize_t done = ::pread(descriptor_, part.data(), part.size(), offset + total);
    if (done == 0) {
      break;
    }
    if (done > 0) {
      total += done;
    } else if (errno != EINTR) {
      fail("read", path_, errno);
    }
  }
  return total;
}

std::int64_t FileDescriptor::size() const {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) {
    fail("read the size of", path_, errno);
  }
  return status.st_size;
}

void FileDescriptor::truncate(std::int64_t size_bytes) {
  if (::ftruncate(descriptor_, size_bytes) != 0) {
    fail("truncate", path_, errno);
  }
}

void FileDescriptor::sync() {
  if (::fsync(descriptor_) != 0 && errno != EINVAL && errno != ENOTSUP && errno != EROFS) {
    fail("write", path_, errno);
  }
}

void FileDescriptor::require_lock() {
  // A file system without locks (some network ones) must not stop the work.
  const bool is_held = ::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  if (is_held || !is_at_its_path()) {
    throw std::runtime_error(
        fmt::format("'{}' is in use by another process; wait for it or choose another output", path_));
  }
}

bool FileDescriptor::is_at_its_path() const {
  struct stat opened {};
  struct stat named {};
  return ::fstat(descriptor_, &opened) == 0 && ::stat(path_.c_str(), &named) == 0 &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

void FileDescriptor::close() {
  if (::close(std::exchange(descriptor_, -1)) != 0 && errno != EINTR) {
    fail("write", path_, errno);
  }
}

std::string follow_link(const std::string& path) {
  constexpr int kMostLinks = 40;  // as Linux
  std::filesystem::path target = path;
  std::error_code ignored;
  for (int links = 0; std::filesystem::is_symlink(target, ignored); ++links) {
    if (links == kMostLinks) {
      fail("create", path, ELOOP);
    }
    target = target.parent_path() / std::filesystem::read_symlink(target);
  }
  return target.string();
}

void replace_file(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    fail("create", to, errno);
  }
  const auto directory = std::filesystem::path(to).parent_path();
  FileDescriptor(directory.empty() ? "." : directory.string(), O_RDONLY | O_DIRECTORY).sync();
}

void require_not_directory(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    fail("create", path, EISDIR);
  }
}

void remove_quietly(const std::string& path) noexcept { std::remove(path.c_str()); }

}  // namespace longstrand::io
