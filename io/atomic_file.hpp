#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "io/file_descriptor.hpp"

namespace longstrand::io {

// An output file that appears whole or not at all: written as PATH.partial beside its destination, synced and
// renamed by commit(), removed if it goes out of scope before. A path that is "-" or empty is standard
// output; that, other open descriptors (/dev/stdout, /dev/fd/N), devices, pipes and sockets are written
// directly, since renaming would replace them; a symbolic link is followed. Only one writer at a time: a
// second one on the same path throws. Writes are buffered. The first error throws std::runtime_error naming
// path and reason; SIGPIPE must be ignored by the program for a closed pipe to arrive as such an error. After
// an error the object can only be destroyed.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  void write(std::string_view text);
  // Hands everything written so far to the system: for standard output, so that a reader sees finished lines.
  void flush();
  // Completes the file; nothing may be written after it.
  void commit();

 private:
  std::string destination_;
  std::optional<FileDescriptor> file_;  // empty after commit
  bool renames_ = false;                // the file is under a temporary name until commit
  std::string buffer_;
};

// Whether an AtomicFile of that path is written directly, so that there is no file to put others beside.
bool is_stream(const std::string& path);

// A file's whole content in one call. Throws like AtomicFile.
void write_file(const std::string& path, std::string_view content);

}  // namespace longstrand::io
