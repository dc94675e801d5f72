// The tokens of one record, kept for a second pass in the other direction.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "io/file_descriptor.hpp"

namespace longstrand::pipelines {

/// Keeps the first `memory_tokens` in memory and the rest in a nameless file in the folder for temporary
/// files, so that memory does not grow with the record. Errors of that file throw std::runtime_error with
/// path and reason.
class TokenSpool {
 public:
  static constexpr std::int64_t kMemoryTokens = std::int64_t{1} << 20;
  explicit TokenSpool(std::int64_t memory_tokens = kMemoryTokens) : memory_tokens_(memory_tokens) {}

  void clear();
  void append(std::span<const std::uint8_t> tokens);
  std::int64_t size() const { return size_; }
  /// Tokens [begin, begin + tokens.size()), which must have been appended.
  void read(std::int64_t begin, std::span<std::uint8_t> tokens) const;

 private:
  std::int64_t memory_tokens_;
  std::vector<std::uint8_t> memory_;        // the first tokens
  std::optional<io::FileDescriptor> file_;  // those behind memory_tokens_; opened when first needed
  std::int64_t size_ = 0;
};

}  // namespace longstrand::pipelines
