#include "io/byte_stream.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <new>
#include <system_error>
#include <utility>

#include "io/input_error.hpp"

namespace longstrand::io {

std::int64_t file_bytes(const std::string& path) {
  std::error_code error;
  if (path == "-" || !std::filesystem::is_regular_file(path, error)) return -1;
  const auto bytes = std::filesystem::file_size(path, error);
  return error ? -1 : static_cast<std::int64_t>(bytes);
}

ByteStream::ByteStream(HFilePtr file, std::string path, int threads)
    : path_(std::move(path)), file_bytes_(file_bytes(path_)) {
  file_.reset(bgzf_hopen(file.get(), "r"));
  if (!file_) throw InputError(fmt::format("{}: is damaged: it begins like gzip, but is not", path_));
  file.release();  // now owned by file_
  constexpr int kBlocksPerThread = 256;
  if (threads > 0 && compression() == bgzf && bgzf_mt(file_.get(), threads, kBlocksPerThread) < 0) {
    throw std::bad_alloc();
  }
}

double ByteStream::share_read() const {
  if (file_bytes_ < 0) return -1;
  if (at_end_) return 1;
  if (file_->block_length == 0) return 0;
  const auto unread = static_cast<double>(unread_.size()) / file_->block_length;
  int block_bytes = 0;  // of gzip, the address is already that behind what was decompressed
  if (compression() == no_compression) block_bytes = file_->block_length;
  if (compression() == bgzf) block_bytes = file_->block_clength;
  const double position = static_cast<double>(file_->block_address) + (1 - unread) * block_bytes;
  return std::min(position / static_cast<double>(file_bytes_), 1.0);
}

void ByteStream::require_end_marker() const {
  if (compression() == bgzf && bgzf_check_EOF(file_.get()) == 0) fail_without_end_marker();
}

void ByteStream::fail_without_end_marker() const {
  throw InputError(
      fmt::format("{}: truncated: the bgzf end-of-file marker is missing; get the file again, or, if "
                  "it is complete, write it anew with bgzip",
                  path_));
}

std::string_view ByteStream::read_block() {
  errno = 0;
  if (bgzf_read_block(file_.get()) < 0) {
    const bool io_error = (file_->errcode & BGZF_ERR_IO) != 0 && errno != 0;
    throw InputError(fmt::format("{}: {} near compressed byte {}; get the file again", path_,
                                 io_error ? std::strerror(errno) : "compressed data are truncated or damaged",
                                 file_->block_address));
  }
  if (file_->block_length == 0 && file_->no_eof_block) {
    fail_without_end_marker();
  }
  unread_ = {static_cast<const char*>(file_->uncompressed_block),
             static_cast<std::size_t>(file_->block_length)};
  at_end_ = unread_.empty();
  return unread_;
}

bool ByteStream::read_line(std::string& line) {
  line.clear();
  bool any = false;
  for (std::string_view bytes = peek(); !bytes.empty(); bytes = peek()) {
    any = true;
    const std::size_t newline = bytes.find('\n');
    line.append(bytes.substr(0, newline));
    if (line.size() > kLongestLine) {
      throw InputError(
          fmt::format("{}: a line longer than 1 MiB where a name is expected; is it a text file?", path_));
    }
    consume(newline == std::string_view::npos ? bytes.size() : newline + 1);
    if (newline != std::string_view::npos) break;
  }
  if (line.ends_with('\r')) line.pop_back();
  return any;
}

void ByteStream::seek(std::int64_t stored_offset, std::int64_t block_offset) {
  constexpr int kBlockBits = 16;  // of a virtual offset
  unread_ = {};
  at_end_ = false;
  if (bgzf_seek(file_.get(), stored_offset << kBlockBits, SEEK_SET) < 0) {
    throw InputError(fmt::format("{}: cannot be read at byte {}", path_, stored_offset));
  }
  for (auto left = static_cast<std::size_t>(block_offset); left > 0;) {
    const std::size_t count = std::min(left, peek().size());
    if (count == 0) break;
    consume(count);
    left -= count;
  }
}

}  // namespace longstrand::io
