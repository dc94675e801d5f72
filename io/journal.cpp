#include "io/journal.hpp"

#include <fcntl.h>
#include <zlib.h>

#include <cstring>
#include <limits>
#include <stdexcept>

namespace longstrand::io {
namespace {

struct RecordHead {
  std::uint32_t payload_bytes;
  std::uint32_t checksum;
};

std::uint32_t checksum_of(std::uint32_t payload_bytes, const void* payload) {
  uLong sum = crc32_z(0, reinterpret_cast<const Bytef*>(&payload_bytes), sizeof payload_bytes);
  sum = crc32_z(sum, static_cast<const Bytef*>(payload), payload_bytes);
  return static_cast<std::uint32_t>(sum);
}

}  // namespace

// The lock comes before the truncation, so that a second process cannot empty the journal of the first.
Journal::Journal(const std::string& path, Open how) : file_(path, O_RDWR | O_CREAT) {
  file_.require_lock();
  if (how == Open::kCreate) {
    file_.truncate(0);
  }
}

void Journal::append(std::span<const std::byte> payload) {
  if (payload.size() > std::numeric_limits<std::uint32_t>::max()) {
    throw std::length_error("a journal record is limited to 4 GiB");
  }
  const auto bytes = static_cast<std::uint32_t>(payload.size());
  const RecordHead head{bytes, checksum_of(bytes, payload.data())};
  std::string record(sizeof head + payload.size(), '\0');
  std::memcpy(record.data(), &head, sizeof head);
  std::memcpy(record.data() + sizeof head, payload.data(), payload.size());
  file_.write_at(std::as_bytes(std::span(record)), offset_);
  offset_ += std::ssize(record);
}

bool Journal::read(std::string* payload) {
  RecordHead head{};
  const auto head_bytes = std::as_writable_bytes(std::span(&head, 1));
  if (file_.read_at(head_bytes, offset_) < std::ssize(head_bytes)) {
    return false;
  }
  const auto payload_offset = offset_ + std::ssize(head_bytes);
  if (head.payload_bytes > file_.size() - payload_offset) {
    return false;
  }
  payload->resize(head.payload_bytes);
  file_.read_at(std::as_writable_bytes(std::span(*payload)), payload_offset);
  if (checksum_of(head.payload_bytes, payload->data()) != head.checksum) {
    return false;
  }
  offset_ = payload_offset + head.payload_bytes;
  return true;
}

}  // namespace longstrand::io
