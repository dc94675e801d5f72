#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "io/file_descriptor.hpp"

namespace longstrand::io {

// An append-only file of checksummed records that survives a crash at any moment: a torn
// record is recognised at reading, and it and what follows are cut off. On disk a record is {uint32 payload
// bytes, uint32 CRC-32 of that number and the payload}, then the payload, in the machine's byte order: a
// journal is continued on the machine that began it. Only one process can have a journal open. Errors of the
// system throw std::runtime_error with path and reason.
class Journal {
 public:
  enum class Open { kCreate, kContinue };  // kCreate empties a file that is there
  Journal(const std::string& path, Open how);

  // Adds a record after the last one read or appended. A failed append leaves its records as they were.
  void append(std::span<const std::byte> payload);

  // Reads the next record; false at the end, or at a record that is torn, which the next append overwrites.
  bool read(std::string* payload);

  // The end of the last record read or appended, in bytes; seek() goes back to such a place.
  std::int64_t position() const { return offset_; }
  void seek(std::int64_t position) { offset_ = position; }

  // Cuts off whatever follows position().
  void truncate_here() { file_.truncate(offset_); }
  void sync() { file_.sync(); }

 private:
  FileDescriptor file_;
  std::int64_t offset_ = 0;
};

}  // namespace longstrand::io
