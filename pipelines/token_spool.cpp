#include "pipelines/token_spool.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <system_error>

namespace longstrand::pipelines {

namespace {

io::FileDescriptor open_nameless_file() {
  std::string path = (std::filesystem::temp_directory_path() / "longstrand-XXXXXX").string();
  const int descriptor = ::mkostemp(path.data(), O_CLOEXEC);
  if (descriptor < 0) {
    throw std::runtime_error(
        fmt::format("cannot create a temporary file '{}': {}; set TMPDIR to a folder with room", path,
                    std::generic_category().message(errno)));
  }
  ::unlink(path.c_str());
  return {descriptor, path};
}

}  // namespace

void TokenSpool::clear() {
  memory_.clear();
  if (size_ > memory_tokens_) file_->truncate(0);
  size_ = 0;
}

void TokenSpool::append(std::span<const std::uint8_t> tokens) {
  const auto room = static_cast<std::size_t>(std::max<std::int64_t>(memory_tokens_ - size_, 0));
  const auto kept = tokens.first(std::min(room, tokens.size()));
  memory_.insert(memory_.end(), kept.begin(), kept.end());
  const auto rest = tokens.subspan(kept.size());
  if (!rest.empty()) {
    if (!file_) file_ = open_nameless_file();
    file_->write_at(std::as_bytes(rest), size_ + std::ssize(kept) - memory_tokens_);
  }
  size_ += std::ssize(tokens);
}

void TokenSpool::read(std::int64_t begin, std::span<std::uint8_t> tokens) const {
  assert(begin >= 0 && begin + std::ssize(tokens) <= size_);
  const std::int64_t in_memory = std::clamp<std::int64_t>(std::ssize(memory_) - begin, 0, std::ssize(tokens));
  std::copy_n(memory_.begin() + (in_memory > 0 ? begin : 0), in_memory, tokens.begin());
  const auto rest = tokens.subspan(static_cast<std::size_t>(in_memory));
  if (rest.empty()) return;
  const std::int64_t count = file_->read_at(std::as_writable_bytes(rest), begin + in_memory - memory_tokens_);
  if (count < std::ssize(rest))
    throw std::runtime_error(file_->path() + ": the temporary file was cut short");
}

}  // namespace longstrand::pipelines
