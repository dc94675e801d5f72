#include "io/byte_stream.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "io/input_error.hpp"

namespace longstrand::io {

ByteStream::ByteStream(HFilePtr file, std::string path, int threads) : path_(std::move(path)) {
  file_.reset(bgzf_hopen(file.get(), "r"));
  if (!file_) throw InputError(fmt::format("{}: is damaged: it begins like gzip, but is not", path_));
  file.release();  // now owned by file_
  constexpr int kBlocksPerThread = 256;
  if (threads > 0 && bgzf_compression(file_.get()) == bgzf &&
      bgzf_mt(file_.get(), threads, kBlocksPerThread) < 0) {
    throw std::bad_alloc();
  }
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
    throw InputError(
        fmt::format("{}: truncated: the bgzf end-of-file marker is missing; get the file again, or, if "
                    "it is complete, write it anew with bgzip",
                    path_));
  }
  unread_ = {static_cast<const char*>(file_->uncompressed_block),
             static_cast<std::size_t>(file_->block_length)};
  return unread_;
}

}  // namespace longstrand::io
