#include "io/fasta_region_source.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "io/input_error.hpp"

namespace longstrand::io {
namespace {

// Every piece costs a seek, and in bgzf the decompression of one more block of 64 KiB.
constexpr std::int64_t kPieceBases = std::int64_t{1} << 20;

FastaIndexPtr open_fasta_index(const std::string& path) {
  const HFilePtr file = open_local_file(path);
  const htsCompression compression = detect_format(file.get(), path).compression;
  if (compression != no_compression && compression != bgzf) {
    throw InputError(
        fmt::format("{}: regions need plain or bgzf FASTA; write it anew with gunzip and bgzip", path));
  }
  const bool indexed = std::filesystem::exists(path + ".fai") &&
                       (compression != bgzf || std::filesystem::exists(path + ".gzi"));
  if (!indexed)
    throw InputError(fmt::format("{}: has no index; make it with: samtools faidx {}", path, path));
  FastaIndexPtr index(fai_load3(path.c_str(), nullptr, nullptr, 0));
  if (!index) {
    throw InputError(
        fmt::format("{}: its index cannot be used; make it anew with: samtools faidx {}", path, path));
  }
  return index;
}

// -1 if there is no such sequence. Not by faidx_seq_len(), whose int ends at 2^31.
std::int64_t sequence_length(const faidx_t* index, const std::string& name) {
  if (faidx_has_seq(index, name.c_str()) == 0) return -1;
  int id = 0;
  hts_pos_t begin = 0;
  hts_pos_t end = 0;
  const std::string whole = "{" + name + "}";
  return fai_parse_region(index, whole.c_str(), &id, &begin, &end, 0) == nullptr ? -1 : end;
}

}  // namespace

FastaRegionSource::FastaRegionSource(const std::string& path, const SourceOptions& options)
    : path_(path), index_(open_fasta_index(path)) {
  regions_ = resolve_regions(options.regions, options.regions_file, path,
                             [&](const std::string& name) { return sequence_length(index_.get(), name); });
}

bool FastaRegionSource::next_record(RecordInfo& record) {
  if (next_region_ == regions_.size()) return false;
  const Region& region = regions_[next_region_++];
  record = RecordInfo{};
  record.name = region.name;
  record.begin = region.begin;
  record.length = region.end - region.begin;
  position_ = region.begin;
  piece_length_ = piece_used_ = 0;
  return true;
}

std::int64_t FastaRegionSource::read_bases(std::span<char> out) {
  std::int64_t filled = 0;
  while (filled < std::ssize(out)) {
    if (piece_used_ == piece_length_) fetch_piece();
    const std::int64_t count = std::min(piece_length_ - piece_used_, std::ssize(out) - filled);
    if (count == 0) break;
    std::memcpy(out.data() + filled, piece_.get() + piece_used_, static_cast<std::size_t>(count));
    piece_used_ += count;
    filled += count;
  }
  return filled;
}

// Leaves the piece empty at the end of the region.
void FastaRegionSource::fetch_piece() {
  piece_length_ = piece_used_ = 0;
  if (next_region_ == 0) return;
  const Region& region = regions_[next_region_ - 1];
  const std::int64_t wanted = std::min(kPieceBases, region.end - position_);
  if (wanted == 0) return;
  hts_pos_t length = 0;
  piece_.reset(
      faidx_fetch_seq64(index_.get(), region.name.c_str(), position_, position_ + wanted - 1, &length));
  if (!piece_ || length != wanted) {
    throw InputError(
        fmt::format("{}: cannot read {}:{}-{}; the file is damaged or has changed since it was indexed: "
                    "samtools faidx {}",
                    path_, region.name, position_ + 1, position_ + wanted, path_));
  }
  piece_length_ = wanted;
  position_ += wanted;
}

}  // namespace longstrand::io
