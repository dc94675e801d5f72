#include "io/obs_block.hpp"

#include <cassert>
#include <cstring>

namespace longstrand::io {
namespace {

struct BlockHead {
  std::uint32_t checksum;
  std::uint32_t reserved;
  std::int64_t obs_count;
};

struct FixedPart {
  std::int64_t start;
  std::int64_t end;
  std::int64_t length;
  std::int64_t name_bytes;
  std::int64_t strand;
};

template <class T>
void put(std::string& bytes, const T& value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <class T>
T take(std::string_view& bytes) {
  assert(bytes.size() >= sizeof(T));
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  bytes.remove_prefix(sizeof value);
  return value;
}

}  // namespace

std::string encode(std::uint32_t checksum, std::span<const ObsRow> obs) {
  std::string bytes;
  bytes.reserve(sizeof(BlockHead) + obs.size() * (sizeof(FixedPart) + 32));
  put(bytes, BlockHead{checksum, 0, std::ssize(obs)});
  for (const auto& row : obs) {
    put(bytes, FixedPart{row.start, row.end, row.length, std::ssize(row.record), row.strand});
    bytes += row.record;
  }
  return bytes;
}

ObsBlock decode(const std::string& bytes) {
  std::string_view rest = bytes;
  const auto head = take<BlockHead>(rest);
  ObsBlock block{head.checksum, {}};
  block.obs.reserve(static_cast<std::size_t>(head.obs_count));
  for (std::int64_t i = 0; i < head.obs_count; ++i) {
    const auto fixed = take<FixedPart>(rest);
    const auto name_bytes = static_cast<std::size_t>(fixed.name_bytes);
    assert(rest.size() >= name_bytes);
    block.obs.push_back({.record = rest.substr(0, name_bytes),
                         .start = fixed.start,
                         .end = fixed.end,
                         .strand = static_cast<char>(fixed.strand),
                         .length = fixed.length});
    rest.remove_prefix(name_bytes);
  }
  return block;
}

std::int64_t count_rows(RowKind kind, std::span<const ObsRow> obs) {
  if (kind == RowKind::kPooled) {
    return std::ssize(obs);
  }
  std::int64_t count = 0;
  for (const auto& run : obs) {
    count += run.end - run.start;
  }
  return count;
}

}  // namespace longstrand::io
