// The bytes of a plain, gzip or bgzf file, block by block, without a copy.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "io/htslib.hpp"

namespace longstrand::io {

class ByteStream {
 public:
  // path is for messages. threads (bgzf only) decompress besides the caller's.
  ByteStream(HFilePtr file, std::string path, int threads);

  // The unread bytes of the current block, at least one; empty at a clean end of the file. They stay valid
  // until consume() has passed them all and peek() is called again. Throws InputError if the file is damaged,
  // or if it is truncated: a gzip stream without trailer, or bgzf without its end-of-file marker.
  std::string_view peek() { return unread_.empty() ? read_block() : unread_; }

  // count <= peek().size()
  void consume(std::size_t count) { unread_.remove_prefix(count); }

  const std::string& path() const { return path_; }

 private:
  std::string_view read_block();

  BgzfPtr file_;
  std::string path_;
  std::string_view unread_;
};

}  // namespace longstrand::io
