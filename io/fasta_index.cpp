#include "io/fasta_index.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string_view>

#include "io/byte_stream.hpp"
#include "io/input_error.hpp"

namespace longstrand::io {
namespace {

constexpr std::int64_t kLargest = std::int64_t{1} << 47;  // what a bgzf virtual offset holds

[[noreturn]] void fail_to_use(const std::string& index, const std::string& path) {
  throw InputError(fmt::format("{}: is damaged; make it anew with: samtools faidx {}", index, path));
}

// Reads a tab and a number from the front of text; -1 if they are not there.
std::int64_t take_column(std::string_view& text) {
  if (!text.starts_with('\t')) return -1;
  std::int64_t value = -1;
  const auto [end, error] = std::from_chars(text.data() + 1, text.data() + text.size(), value);
  if (error != std::errc{} || value < 0 || value >= kLargest) return -1;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

// Every position can be computed, and lies within what a virtual offset holds.
bool is_consistent(const FastaIndex::Sequence& sequence) {
  if (sequence.length == 0) return true;
  if (sequence.line_bases == 0 || sequence.line_bytes < sequence.line_bases) return false;
  const std::int64_t lines = sequence.length / sequence.line_bases + 1;
  return lines <= (kLargest - sequence.offset) / sequence.line_bytes;
}

std::int64_t little_endian(const char* bytes) {
  std::uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return static_cast<std::int64_t>(value);
}

}  // namespace

void require_fasta_index(const std::string& path, bool is_bgzf) {
  std::error_code ignored;
  const auto exists = [&](const char* suffix) { return std::filesystem::exists(path + suffix, ignored); };
  if (exists(".fai") && (!is_bgzf || exists(".gzi"))) return;
  throw InputError(fmt::format("{0}: has no index; make it with: samtools faidx {0}", path));
}

FastaIndex::FastaIndex(const std::string& path, bool is_bgzf) {
  require_fasta_index(path, is_bgzf);
  read_fai(path);
  if (is_bgzf) read_gzi(path);
}

void FastaIndex::read_fai(const std::string& path) {
  const std::string index = path + ".fai";
  ByteStream input(open_local_file(index), index, 0);
  std::string line;
  while (input.read_line(line)) {
    const std::size_t tab = std::min(line.find('\t'), line.size());
    std::string_view columns = std::string_view(line).substr(tab);
    Sequence sequence;
    for (std::int64_t* column :
         {&sequence.length, &sequence.offset, &sequence.line_bases, &sequence.line_bytes}) {
      *column = take_column(columns);
      if (*column < 0) fail_to_use(index, path);
    }
    if (!columns.empty() || !is_consistent(sequence)) fail_to_use(index, path);
    sequences_.emplace(line.substr(0, tab), sequence);
  }
}

// A count, then that many pairs of stored and decompressed offset, all 64 bit little-endian. The first block,
// at 0, is not among them.
void FastaIndex::read_gzi(const std::string& path) {
  constexpr std::size_t kNumberBytes = 8;
  const std::string index = path + ".gzi";
  std::ifstream file(index, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  if (bytes.size() % (2 * kNumberBytes) != kNumberBytes) fail_to_use(index, path);
  const std::size_t count = bytes.size() / (2 * kNumberBytes);
  if (little_endian(bytes.data()) != static_cast<std::int64_t>(count)) fail_to_use(index, path);
  blocks_.reserve(count + 1);
  blocks_.push_back({0, 0});
  for (std::size_t at = kNumberBytes; at < bytes.size(); at += 2 * kNumberBytes) {
    const Block block{little_endian(&bytes[at]), little_endian(&bytes[at + kNumberBytes])};
    const Block& last = blocks_.back();
    if (block.stored < last.stored || block.decompressed < last.decompressed || block.stored >= kLargest) {
      fail_to_use(index, path);
    }
    blocks_.push_back(block);
  }
}

const FastaIndex::Sequence* FastaIndex::find(const std::string& name) const {
  const auto found = sequences_.find(name);
  return found == sequences_.end() ? nullptr : &found->second;
}

FastaIndex::StoredPosition FastaIndex::locate(const Sequence& sequence, std::int64_t position) const {
  const std::int64_t offset =
      sequence.offset + position / sequence.line_bases * sequence.line_bytes + position % sequence.line_bases;
  if (blocks_.empty()) return {offset, 0};
  const auto after =
      std::upper_bound(blocks_.begin(), blocks_.end(), offset,
                       [](std::int64_t value, const Block& block) { return value < block.decompressed; });
  const Block& block = *std::prev(after);
  return {block.stored, offset - block.decompressed};
}

}  // namespace longstrand::io
