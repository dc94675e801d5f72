#include "io/sequence_source.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "io/alignment_source.hpp"
#include "io/byte_stream.hpp"
#include "io/fasta_region_source.hpp"
#include "io/fastx_source.hpp"
#include "io/htslib.hpp"
#include "io/input_error.hpp"

namespace longstrand::io {
namespace {

using SourcePtr = std::unique_ptr<SequenceSource>;
using Opener = SourcePtr (*)(HFilePtr file, const std::string& path, SequenceKind kind,
                             const SourceOptions& options);

bool wants_regions(const SourceOptions& options) {
  return !options.regions.empty() || !options.regions_file.empty();
}

// Regions take a seek and little reading each.
ByteStream open_bytes(HFilePtr file, const std::string& path, const SourceOptions& options) {
  return {std::move(file), path, wants_regions(options) ? 0 : options.decompression_threads};
}

SourcePtr make_fastx(ByteStream input, SequenceKind kind, const SourceOptions& options) {
  if (!wants_regions(options)) return std::make_unique<FastxSource>(std::move(input), kind);
  if (kind == SequenceKind::fastq) {
    throw InputError(fmt::format("{}: regions need FASTA, BAM or CRAM, and this is FASTQ", input.path()));
  }
  return std::make_unique<FastaRegionSource>(std::move(input), options);
}

SourcePtr open_fastx(HFilePtr file, const std::string& path, SequenceKind kind,
                     const SourceOptions& options) {
  return make_fastx(open_bytes(std::move(file), path, options), kind, options);
}

SourcePtr open_alignments(HFilePtr file, const std::string& path, SequenceKind kind,
                          const SourceOptions& options) {
  return std::make_unique<AlignmentSource>(std::move(file), path, kind, options);
}

struct Reader {
  SequenceKind kind;
  std::string_view name;
  htsExactFormat format;
  Opener open;
};

constexpr std::array kReaders = {
    Reader{SequenceKind::fasta, "FASTA", fasta_format, open_fastx},
    Reader{SequenceKind::fastq, "FASTQ", fastq_format, open_fastx},
    Reader{SequenceKind::sam, "SAM", sam, open_alignments},
    Reader{SequenceKind::bam, "BAM", bam, open_alignments},
    Reader{SequenceKind::cram, "CRAM", cram, open_alignments},
};

// HTSlib wants DNA on the second line before it speaks of FASTA or FASTQ. We also take a file that begins
// with blank lines, or whose first record is empty, or holds characters that our caller will want to name by
// position.
SourcePtr open_text(HFilePtr file, const std::string& path, const htsFormat& format,
                    const SourceOptions& options) {
  if (format.compression != no_compression && format.compression != gzip && format.compression != bgzf)
    return nullptr;
  ByteStream input = open_bytes(std::move(file), path, options);
  const std::string_view bytes = input.peek();
  const std::size_t first = bytes.find_first_not_of("\r\n");
  if (first == std::string_view::npos) return nullptr;
  if (bytes[first] == '>') return make_fastx(std::move(input), SequenceKind::fasta, options);
  if (bytes[first] == '@') return make_fastx(std::move(input), SequenceKind::fastq, options);
  return nullptr;
}

}  // namespace

std::string_view kind_name(SequenceKind kind) {
  return std::find_if(kReaders.begin(), kReaders.end(), [&](const Reader& row) { return row.kind == kind; })
      ->name;
}

std::unique_ptr<SequenceSource> open_sequences(const std::string& path, const SourceOptions& options) {
  if (path == "-" && wants_regions(options)) {
    throw InputError("standard input has no index, which regions need; give a file");
  }
  HFilePtr file = open_local_file(path);
  const htsFormat format = detect_format(file.get(), path);
  const auto reader = std::find_if(kReaders.begin(), kReaders.end(),
                                   [&](const Reader& row) { return row.format == format.format; });
  if (reader != kReaders.end()) return reader->open(std::move(file), path, reader->kind, options);
  if (format.format == empty_format) throw InputError(fmt::format("{}: is empty", path));
  if (format.category == unknown_category) {
    if (auto source = open_text(std::move(file), path, format, options)) return source;
  }
  throw InputError(fmt::format("{}: is {}; expected FASTA, FASTQ, SAM, BAM or CRAM (plain, gzip or bgzf)",
                               path, describe(format)));
}

}  // namespace longstrand::io
