#include "pipelines/token_store.hpp"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <fstream>

#include "io/alphabet.hpp"
#include "io/atomic_file.hpp"
#include "io/input_error.hpp"

namespace longstrand::pipelines {
namespace {

namespace fs = std::filesystem;

constexpr int kFormat = 1;  // of the files; a store of another format is made again
constexpr std::int64_t kWindowBytes = sizeof(StoredWindow);
constexpr std::size_t kBufferedWindows = 4096;
constexpr std::int64_t kReadTokens = 1 << 18;

fs::path table_path(const fs::path& folder, Split split) {
  return folder / fmt::format("{}.bin", split_name(split));
}

nlohmann::json read_json(const fs::path& path) {
  std::ifstream file(path);
  auto json = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!file || !json.is_object() || json.value("format", 0) != kFormat) {
    throw io::InputError(fmt::format("'{}' is not the index of a token store", path.string()));
  }
  return json;
}

void require_size(const io::FileDescriptor& file, std::int64_t size_bytes) {
  if (file.size() == size_bytes) return;
  throw io::InputError(fmt::format("'{}' has {} bytes instead of {}: remove its folder to have it made again",
                                   file.path(), file.size(), size_bytes));
}

fs::path emptied(const fs::path& folder) {
  fs::remove_all(folder);
  fs::create_directories(folder);
  return folder;
}

}  // namespace

TokenStore::TokenStore(const fs::path& folder) : TokenStore(folder, read_json(folder / "store.json")) {}

TokenStore::TokenStore(const fs::path& folder, const nlohmann::json& json)
    : description_(json.at("description")),
      tokens_((folder / "tokens.bin").string(), O_RDONLY),
      train_(open_table(folder, Split::train, json.at("train"))),
      valid_(open_table(folder, Split::valid, json.at("valid"))) {
  require_size(tokens_, json.at("tokens"));
}

TokenStore::Table TokenStore::open_table(const fs::path& folder, Split split, const nlohmann::json& counts) {
  Table table{.file = {table_path(folder, split).string(), O_RDONLY},
              .count = counts.at("windows"),
              .tokens = counts.at("tokens")};
  require_size(table.file, table.count * kWindowBytes);
  return table;
}

StoredWindow TokenStore::window(Split split, std::int64_t index) const {
  assert(index >= 0 && index < window_count(split));
  StoredWindow window;
  table(split).file.read_at(std::as_writable_bytes(std::span(&window, 1)), index * kWindowBytes);
  return window;
}

std::int64_t TokenStore::class_begin(Split split, std::int64_t label) const {
  std::int64_t low = 0;
  std::int64_t high = window_count(split);
  while (low < high) {
    const std::int64_t middle = low + (high - low) / 2;
    if (window(split, middle).label < label) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

void TokenStore::read(std::int64_t start, std::span<std::uint8_t> tokens) const {
  if (tokens_.read_at(std::as_writable_bytes(tokens), start) == std::ssize(tokens)) return;
  throw io::InputError(fmt::format("'{}' ends before token {}: it was changed while in use", tokens_.path(),
                                   start + std::ssize(tokens)));
}

TokenStoreWriter::TokenStoreWriter(const fs::path& folder)
    : folder_(folder),
      partial_(emptied(folder.string() + ".partial")),
      tokens_((partial_ / "tokens.bin").string(), O_RDWR | O_CREAT | O_TRUNC),
      train_{.file = {table_path(partial_, Split::train).string(), O_WRONLY | O_CREAT | O_TRUNC},
             .buffer = {}},
      valid_{.file = {table_path(partial_, Split::valid).string(), O_WRONLY | O_CREAT | O_TRUNC},
             .buffer = {}} {}

TokenStoreWriter::~TokenStoreWriter() {
  std::error_code ignored;
  if (!finished_) fs::remove_all(partial_, ignored);
}

void TokenStoreWriter::append(std::span<const std::uint8_t> tokens) {
  tokens_.write(std::as_bytes(tokens));
  token_count_ += std::ssize(tokens);
}

std::int64_t TokenStoreWriter::count_bases(std::int64_t start, std::int64_t length) {
  std::int64_t bases = 0;
  for (std::int64_t done = 0; done < length; done += kReadTokens) {
    read_buffer_.resize(static_cast<std::size_t>(std::min(kReadTokens, length - done)));
    tokens_.read_at(std::as_writable_bytes(std::span(read_buffer_)), start + done);
    bases += std::count_if(read_buffer_.begin(), read_buffer_.end(), io::is_base);
  }
  return bases;
}

void TokenStoreWriter::add(Split split, const StoredWindow& window) {
  assert(split != Split::test && window.start + window.length + window.room <= token_count_);
  auto& table = split == Split::train ? train_ : valid_;
  table.buffer.push_back(window);
  table.count += 1;
  table.tokens += window.length;
  if (table.buffer.size() == kBufferedWindows) table.flush();
}

void TokenStoreWriter::Table::flush() {
  file.write(std::as_bytes(std::span(buffer)));
  buffer.clear();
}

nlohmann::json TokenStoreWriter::close(Table& table) {
  table.flush();
  table.file.sync();
  table.file.close();
  return {{"windows", table.count}, {"tokens", table.tokens}};
}

void TokenStoreWriter::finish(const nlohmann::json& description) {
  tokens_.sync();
  tokens_.close();
  const nlohmann::json json = {{"format", kFormat},
                               {"description", description},
                               {"tokens", token_count_},
                               {"train", close(train_)},
                               {"valid", close(valid_)}};
  io::write_file((partial_ / "store.json").string(), json.dump(2) + '\n');
  fs::remove_all(folder_);
  io::replace_file(partial_.string(), folder_.string());
  finished_ = true;
}

}  // namespace longstrand::pipelines
