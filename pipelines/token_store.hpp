// Training data on disk, so that memory does not grow with it: every base of the inputs as one token, and
// tables of the windows to train and validate on. In a folder:
//
//   tokens.bin              one byte a token, record after record
//   train.bin, valid.bin    StoredWindow after StoredWindow, windows of one class side by side
//   store.json              what it was made from, and the counts; written last
//
// Read with pread alone: a mapped file would count as memory of the process.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>

#include "io/file_descriptor.hpp"
#include "pipelines/manifest.hpp"

namespace longstrand::pipelines {

struct StoredWindow {
  std::int64_t start = 0;   // of its first token in tokens.bin
  std::int64_t length = 0;  // tokens
  std::int64_t room = 0;    // how many tokens further it may begin without leaving its part of the record
  std::int64_t label = -1;  // class id, or -1
};

class TokenStore {
 public:
  /// Throws io::InputError if the folder holds no complete store.
  explicit TokenStore(const std::filesystem::path& folder);

  /// What was given to TokenStoreWriter::finish.
  const nlohmann::json& description() const { return description_; }
  std::int64_t window_count(Split split) const { return table(split).count; }
  /// Sum of the windows' lengths.
  std::int64_t window_tokens(Split split) const { return table(split).tokens; }
  StoredWindow window(Split split, std::int64_t index) const;
  /// Index of the first window of a class; window_count() for one past the last class. Classes are 0, 1, ...
  std::int64_t class_begin(Split split, std::int64_t label) const;
  void read(std::int64_t start, std::span<std::uint8_t> tokens) const;

 private:
  struct Table {
    io::FileDescriptor file;
    std::int64_t count = 0;
    std::int64_t tokens = 0;
  };
  static Table open_table(const std::filesystem::path& folder, Split split, const nlohmann::json& counts);
  const Table& table(Split split) const { return split == Split::train ? train_ : valid_; }

  TokenStore(const std::filesystem::path& folder, const nlohmann::json& json);

  nlohmann::json description_;
  io::FileDescriptor tokens_;
  Table train_;
  Table valid_;
};

/// Writes a store under FOLDER.partial and renames it when it is complete. Windows of a class must come
/// together, classes in ascending order. Unfinished, the partial folder is removed.
class TokenStoreWriter {
 public:
  explicit TokenStoreWriter(const std::filesystem::path& folder);
  TokenStoreWriter(const TokenStoreWriter&) = delete;
  TokenStoreWriter& operator=(const TokenStoreWriter&) = delete;
  ~TokenStoreWriter();

  std::int64_t tokens() const { return token_count_; }
  void append(std::span<const std::uint8_t> tokens);
  /// How many of the given tokens, written before, are A, C, G or T.
  std::int64_t count_bases(std::int64_t start, std::int64_t length);
  /// split: train or valid.
  void add(Split split, const StoredWindow& window);
  void finish(const nlohmann::json& description);

 private:
  struct Table {
    io::FileDescriptor file;
    std::vector<StoredWindow> buffer;
    std::int64_t count = 0;
    std::int64_t tokens = 0;
    void flush();
  };
  nlohmann::json close(Table& table);

  std::filesystem::path folder_;
  std::filesystem::path partial_;
  io::FileDescriptor tokens_;
  Table train_;
  Table valid_;
  std::vector<std::uint8_t> read_buffer_;
  std::int64_t token_count_ = 0;
  bool finished_ = false;
};

}  // namespace longstrand::pipelines
