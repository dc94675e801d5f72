#include "fixtures.hpp"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <random>
#include <stdexcept>

#include "io/htslib.hpp"
#include "io/sequence_source.hpp"

namespace longstrand::io::fixtures {
namespace {

void require(bool condition, const std::string& what) {
  if (!condition) throw std::runtime_error("cannot write the fixture " + what);
}

void append_wrapped(std::string& text, std::string_view letters, std::size_t width,
                    std::string_view line_end) {
  const std::size_t step = width == 0 ? std::max<std::size_t>(letters.size(), 1) : width;
  std::size_t begin = 0;
  do {
    text.append(letters.substr(begin, step)).append(line_end);
    begin += step;
  } while (begin < letters.size());
}

}  // namespace

void write_file(const std::string& path, std::string_view content, Packing packing, std::size_t block_bytes) {
  if (packing == Packing::plain) {
    std::ofstream(path, std::ios::binary) << content;
    return;
  }
  const BgzfPtr file(bgzf_open(path.c_str(), packing == Packing::gzip ? "wg" : "w"));
  require(file != nullptr, path);
  for (std::size_t begin = 0; begin < content.size(); begin += block_bytes) {
    const std::string_view block = content.substr(begin, block_bytes);
    require(bgzf_write(file.get(), block.data(), block.size()) == std::ssize(block), path);
    require(packing == Packing::gzip || bgzf_flush(file.get()) == 0, path);
  }
}

std::string as_fasta(const Records& records, std::size_t width, std::string_view line_end) {
  std::string text;
  for (const Record& record : records) {
    text.append(">").append(record.name).append(line_end);
    append_wrapped(text, record.bases, width, line_end);
  }
  return text;
}

std::string as_fastq(const Records& records, std::size_t width, std::string_view line_end) {
  std::string text;
  for (const Record& record : records) {
    text.append("@").append(record.name).append(line_end);
    append_wrapped(text, record.bases, width, line_end);
    text.append("+").append(line_end);
    // '@' and '+' are qualities too, and may begin a line.
    std::string quality(record.bases.size(), '@');
    for (std::size_t i = 1; i < quality.size(); i += 2) quality[i] = '+';
    append_wrapped(text, quality, width, line_end);
  }
  return text;
}

void write_alignments(const std::string& path, const std::string& mode, const std::string& header_text,
                      const std::vector<Alignment>& alignments, const std::string& reference) {
  const HtsFilePtr file(hts_open(path.c_str(), mode.c_str()));
  require(file != nullptr, path);
  if (!reference.empty()) require(hts_set_opt(file.get(), CRAM_OPT_REFERENCE, reference.c_str()) == 0, path);
  if (reference.empty() && mode == "wc") require(hts_set_opt(file.get(), CRAM_OPT_NO_REF, 1) == 0, path);
  const SamHeaderPtr header(sam_hdr_parse(header_text.size(), header_text.c_str()));
  require(header && sam_hdr_write(file.get(), header.get()) == 0, path);
  const BamRecordPtr record(bam_init1());
  for (const Alignment& alignment : alignments) {
    const bool mapped = (alignment.flag & BAM_FUNMAP) == 0;
    const std::uint32_t cigar =
        static_cast<std::uint32_t>(alignment.bases.size()) << BAM_CIGAR_SHIFT | BAM_CMATCH;
    require(bam_set1(record.get(), alignment.name.size(), alignment.name.c_str(), alignment.flag,
                     mapped ? 0 : -1, mapped ? alignment.position : -1, 60, mapped ? 1 : 0, &cigar, -1, -1, 0,
                     alignment.bases.size(), alignment.bases.c_str(), nullptr, 0) >= 0,
            path);
    require(sam_write1(file.get(), header.get(), record.get()) >= 0, path);
  }
}

std::string reverse_complement(std::string_view bases) {
  constexpr std::string_view kFrom = "ACGTNRYSWKMBDHV";
  constexpr std::string_view kTo = "TGCANYRSWMKVHDB";
  std::string result(bases.rbegin(), bases.rend());
  for (char& base : result) base = kTo.at(kFrom.find(base));
  return result;
}

std::string random_bases(std::int64_t count, std::uint64_t seed, std::string_view alphabet) {
  std::mt19937_64 random(seed);
  std::string bases;
  bases.reserve(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) bases += alphabet[random() % alphabet.size()];
  return bases;
}

Records read_all(const std::string& path, std::size_t piece_bases, int decompression_threads) {
  const auto source = open_sequences(path, {.decompression_threads = decompression_threads});
  std::vector<char> piece(piece_bases);
  Records records;
  RecordInfo info;
  while (source->next_record(info)) {
    Record& record = records.emplace_back();
    record.name = info.name;
    while (const std::int64_t count = source->read_bases(piece)) {
      record.bases.append(piece.data(), static_cast<std::size_t>(count));
    }
  }
  return records;
}

}  // namespace longstrand::io::fixtures
