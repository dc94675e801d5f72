#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace longstrand::io {

// A POSIX file descriptor that it owns (move-only), and the calls that io/ writes with. A transfer is
// finished whatever write(2) does (short counts, EINTR), or std::runtime_error names the path and the
// system's reason. write() throws where it would wait after stop_waiting().
class FileDescriptor {
 public:
  // flags and mode as for open(2); O_CLOEXEC is added. Throws when the file cannot be opened.
  FileDescriptor(std::string path, int flags, mode_t mode = 0666);
  // Takes over an open descriptor; `path` is what messages call it.
  FileDescriptor(int descriptor, std::string path) : path_(std::move(path)), descriptor_(descriptor) {}
  FileDescriptor(FileDescriptor&& other) noexcept;
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor();

  void write(std::span<const std::byte> bytes);
  void write_at(std::span<const std::byte> bytes, std::int64_t offset);
  // Returns the bytes read: fewer than asked for only at the end of the file.
  std::int64_t read_at(std::span<std::byte> bytes, std::int64_t offset) const;

  std::int64_t size() const;
  void truncate(std::int64_t size_bytes);
  // Waits until the content is on the disk. Pipes and terminals, which cannot be synced, count as synced.
  void sync();
  // Takes the advisory lock of this file, which lasts until it is closed. Throws when another holder has it,
  // or has renamed or removed the file since it was opened here.
  void require_lock();
  // Closing reports write errors too (NFS, quotas); the destructor closes silently.
  void close();

  const std::string& path() const { return path_; }
  int get() const { return descriptor_; }

 private:
  // For a pipe; throws where there is none when all is to stop.
  void wait_for_room() const;

  bool is_at_its_path() const;

  std::string path_;
  int descriptor_ = -1;
};

// Where a file written under this name belongs: what a symbolic link points to in the end, whether or not
// that exists; any other path as it is. Throws std::runtime_error for links in a circle.
std::string follow_link(const std::string& path);

// Puts `from` in the place of `to`, both in one directory, so that a crash leaves the old or the new file
// whole: rename(2), then fsync of the directory. The content of `from` must be synced before.
void replace_file(const std::string& from, const std::string& to);

// Throws std::runtime_error if the path is a directory: to be found out before the work, not at the rename
// after it.
void require_not_directory(const std::string& path);

// Removes a file if it is there; for destructors and for files of which absence is as good.
void remove_quietly(const std::string& path) noexcept;

}  // namespace longstrand::io
