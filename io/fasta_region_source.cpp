#include "io/fasta_region_source.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "io/input_error.hpp"
#include "io/white_space.hpp"

namespace longstrand::io {
namespace {

bool check_is_bgzf(const ByteStream& input) {
  if (input.compression() == gzip) {
    throw InputError(fmt::format("{}: regions need plain or bgzf FASTA; write it anew with gunzip and bgzip",
                                 input.path()));
  }
  return input.compression() == bgzf;
}

}  // namespace

FastaRegionSource::FastaRegionSource(ByteStream input, const SourceOptions& options)
    : input_(std::move(input)), index_(input_.path(), check_is_bgzf(input_)) {
  input_.require_end_marker();
  regions_ =
      resolve_regions(options.regions, options.regions_file, input_.path(), [&](const std::string& name) {
        const FastaIndex::Sequence* sequence = index_.find(name);
        return sequence == nullptr ? std::int64_t{-1} : sequence->length;
      });
  for (const Region& region : regions_) total_bases_ += region.end - region.begin;
}

double FastaRegionSource::share_read() const {
  if (total_bases_ == 0) return kUnknownShare;
  return static_cast<double>(begun_bases_ - missing_) / static_cast<double>(total_bases_);
}

bool FastaRegionSource::next_record(RecordInfo& record) {
  missing_ = 0;
  if (next_region_ == regions_.size()) return false;
  const Region& region = regions_[next_region_++];
  record.clear();
  record.name = region.name;
  record.begin = region.begin;
  record.length = region.end - region.begin;
  missing_ = record.length;
  begun_bases_ += record.length;
  if (missing_ > 0) {
    const FastaIndex::Sequence& sequence = *index_.find(region.name);
    const auto position = index_.locate(sequence, region.begin);
    input_.seek(position.block, position.within);
    line_bases_ = sequence.line_bases;
    column_ = region.begin % line_bases_;
  }
  return true;
}

// Of the file itself only its line ends can tell that the index is that of another version: all lines that a
// region leaves must be as long as the index says.
std::int64_t FastaRegionSource::read_bases(std::span<char> out) {
  const std::int64_t wanted = std::min(missing_, std::ssize(out));
  std::int64_t filled = 0;
  while (filled < wanted) {
    const std::string_view bytes = input_.peek();
    const std::string_view piece = bytes.substr(0, static_cast<std::size_t>(wanted - filled));
    const std::string_view line = piece.substr(0, piece.find('\n'));
    if (bytes.empty() || line.starts_with('>')) fail_to_read();
    const auto count = static_cast<std::int64_t>(copy_without_space(line, out.data() + filled));
    const bool line_ends = line.size() < piece.size();
    filled += count;
    column_ += count;
    if (column_ > line_bases_ || (line_ends && column_ < line_bases_)) fail_to_read();
    if (line_ends) column_ = 0;
    input_.consume(std::min(line.size() + 1, piece.size()));
  }
  missing_ -= filled;
  return filled;
}

void FastaRegionSource::fail_to_read() const {
  const Region& region = regions_[next_region_ - 1];
  throw InputError(
      fmt::format("{0}: {1}:{2}-{3} is not where its index says; if the file has changed: samtools faidx {0}",
                  input_.path(), region.name, region.begin + 1, region.end));
}

}  // namespace longstrand::io
