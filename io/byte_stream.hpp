// The bytes of a plain, gzip or bgzf file, block by block, without a copy.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "io/htslib.hpp"

namespace longstrand::io {

// Of a regular file, as it is stored; -1 of anything else, "-" included.
std::int64_t file_bytes(const std::string& path);

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

  // The next line without its line end, LF or CRLF; false at the end of the file. Throws InputError for lines
  // longer than kLongestLine: they are kept in memory, and where one is expected the file is not what it
  // seems.
  bool read_line(std::string& line);

  // Continues at a position of the file as it is stored: block_offset bytes into the (decompressed) block
  // that begins at stored_offset. Plain and bgzf only.
  void seek(std::int64_t stored_offset, std::int64_t block_offset);

  // no_compression, gzip or bgzf
  htsCompression compression() const { return static_cast<htsCompression>(bgzf_compression(file_.get())); }

  // For those who will not read to the end of a seekable file: throws InputError if it is bgzf without its
  // end-of-file marker.
  void require_end_marker() const;

  // The share of the file, as it is stored, that has been consumed, from 0 to 1; negative if file_bytes() is.
  double share_read() const;

  const std::string& path() const { return path_; }

  static constexpr std::size_t kLongestLine = std::size_t{1} << 20;

 private:
  std::string_view read_block();
  [[noreturn]] void fail_without_end_marker() const;

  BgzfPtr file_;
  std::string path_;
  std::int64_t file_bytes_;
  std::string_view unread_;
  bool at_end_ = false;
};

}  // namespace longstrand::io
