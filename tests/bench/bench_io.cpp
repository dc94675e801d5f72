// Reading sequences to tokens: FASTA plain and bgzf, BAM of 150-base reads. One JSON object a case.
//   bench_io [GENOME.fa[.gz]]
// The files are written to a temporary folder, from the genome given (real DNA compresses unlike random
// letters) or from random letters, repeated to kBases. "floor" is the time of HTSlib alone on the same file
// in the same run: its blocks read and decompressed (bgzf_read_block), or its records decoded (sam_read1).

#include <htslib/bgzf.h>
#include <htslib/sam.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "io/byte_stream.hpp"
#include "io/chunk_stream.hpp"
#include "io/htslib.hpp"
#include "tests/support/temporary_directory.hpp"

namespace longstrand::io {
namespace {

constexpr std::int64_t kBases = 128'000'000;
constexpr std::size_t kLineBases = 80;
constexpr std::size_t kReadBases = 150;
constexpr int kRepeats = 5;

void require(bool condition, const char* what) {
  if (!condition) throw std::runtime_error(what);
}

std::string genome_from(const char* path) {
  std::string genome;
  if (path == nullptr) {
    std::mt19937_64 random(1);
    while (std::ssize(genome) < kBases / 8) genome += "ACGT"[random() % 4];
    return genome;
  }
  const auto source = open_sequences(path);
  RecordInfo record;
  std::vector<char> piece(1 << 16);
  while (source->next_record(record)) {
    while (const std::int64_t count = source->read_bases(piece)) {
      genome.append(piece.data(), static_cast<std::size_t>(count));
    }
  }
  return genome;
}

void write_text(const std::string& path, const char* mode, std::string_view text) {
  const BgzfPtr file(bgzf_open(path.c_str(), mode));
  require(file && bgzf_write(file.get(), text.data(), text.size()) == std::ssize(text),
          "cannot write a benchmark file");
}

std::string fasta_text(const std::string& genome) {
  std::string text;
  text.reserve(static_cast<std::size_t>(kBases + kBases / 40));
  for (std::int64_t written = 0; written < kBases; written += std::ssize(genome)) {
    text += ">copy\n";
    for (std::size_t begin = 0; begin < genome.size(); begin += kLineBases) {
      text.append(genome, begin, kLineBases).append("\n");
    }
  }
  return text;
}

// Reads from anywhere in the genome, on either strand, with names and binned qualities as a sequencer of
// today gives.
void write_bam(const std::string& path, const std::string& genome, std::int64_t records) {
  const HtsFilePtr file(hts_open(path.c_str(), "wb"));
  const SamHeaderPtr header(sam_hdr_init());
  require(file && header && sam_hdr_write(file.get(), header.get()) == 0, "cannot write a benchmark file");
  const BamRecordPtr record(bam_init1());
  std::mt19937_64 random(2);
  constexpr std::string_view kQualities("\x25\x25\x25\x25\x25\x25\x25\x25\x25\x25\x25\x25\x17\x0b\x02\x25",
                                        16);
  std::string quality(kReadBases, '\0');
  for (std::int64_t i = 0; i < records; ++i) {
    const std::size_t begin = random() % (genome.size() - kReadBases);
    for (char& q : quality) q = kQualities[random() % kQualities.size()];
    const std::string name = "A00111:123:HXXXXDSXX:1:1101:" + std::to_string(1000 + i % 30000) + ":" +
                             std::to_string(1000 + i / 30000);
    const auto flag = static_cast<std::uint16_t>(BAM_FUNMAP | (random() % 2 == 0 ? 0 : BAM_FREVERSE));
    require(bam_set1(record.get(), name.size(), name.c_str(), flag, -1, -1, 0, 0, nullptr, -1, -1, 0,
                     kReadBases, genome.data() + begin, quality.data(), 0) >= 0 &&
                sam_write1(file.get(), header.get(), record.get()) >= 0,
            "cannot write a benchmark file");
  }
}

struct Work {
  std::int64_t bases = 0;
  std::int64_t records = 0;
};

Work read_blocks(const std::string& path, int threads) {
  ByteStream input(open_local_file(path), path, threads);
  Work work;
  for (std::string_view bytes = input.peek(); !bytes.empty(); bytes = input.peek()) {
    work.bases += std::ssize(bytes);
    input.consume(bytes.size());
  }
  return work;
}

Work decode_records(const std::string& path, int threads) {
  const HtsFilePtr file(hts_open(path.c_str(), "r"));
  if (threads > 0) hts_set_threads(file.get(), threads);
  const SamHeaderPtr header(sam_hdr_read(file.get()));
  const BamRecordPtr record(bam_init1());
  Work work;
  while (sam_read1(file.get(), header.get(), record.get()) >= 0) {
    work.bases += record->core.l_qseq;
    ++work.records;
  }
  return work;
}

Work stream_chunks(const std::string& path, int threads, const ChunkStreamOptions& options) {
  ChunkStream chunks({path}, {.decompression_threads = threads}, options);
  Work work;
  TokenChunk chunk;
  while (chunks.next(chunk)) {
    for (std::size_t b = 0; b < chunk.valid.size(); ++b) {
      work.bases += chunk.valid[b];
      work.records += chunk.ends[b];
    }
  }
  return work;
}

// Wall time: the work is that of several threads.
double median_us(const std::function<void()>& call) {
  std::vector<double> rounds;
  for (int i = 0; i < kRepeats; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    call();
    rounds.push_back(
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count());
  }
  std::nth_element(rounds.begin(), rounds.begin() + kRepeats / 2, rounds.end());
  return rounds[kRepeats / 2];
}

using Floor = Work (*)(const std::string& path, int threads);

void measure(const char* name, const std::string& path, int threads, const ChunkStreamOptions& options,
             Floor floor) {
  Work work;
  const double us = median_us([&] { work = stream_chunks(path, threads, options); });
  const double floor_us = median_us([&] { floor(path, threads); });
  std::printf(R"({"case":"%s","decompression_threads":%d,"lanes":%lld,"chunk_tokens":%lld,"mb_per_s":%.0f,)"
              R"("million_records_per_s":%.2f,"floor_share":%.2f})"
              "\n",
              name, threads, static_cast<long long>(options.lanes),
              static_cast<long long>(options.chunk_tokens), static_cast<double>(work.bases) / us,
              static_cast<double>(work.records) / us, floor_us / us);
}

void run(const char* genome_path) {
  const test::TemporaryDirectory folder;
  const std::string genome = genome_from(genome_path);
  {
    const std::string fasta = fasta_text(genome);
    write_text(folder / "plain.fa", "wu", fasta);
    write_text(folder / "bgzf.fa.gz", "w", fasta);
  }
  write_bam(folder / "reads.bam", genome, 1'000'000);
  const ChunkStreamOptions one_lane;
  const ChunkStreamOptions reads = {.lanes = 64, .chunk_tokens = 256};
  measure("fasta plain", folder / "plain.fa", 0, one_lane, read_blocks);
  for (const int threads : {0, 1})
    measure("fasta bgzf", folder / "bgzf.fa.gz", threads, one_lane, read_blocks);
  for (const int threads : {0, 1}) measure("bam", folder / "reads.bam", threads, reads, decode_records);
}

}  // namespace
}  // namespace longstrand::io

int main(int argc, char** argv) {
  try {
    longstrand::io::run(argc > 1 ? argv[1] : nullptr);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_io: %s\n", error.what());
    return 1;
  }
  return 0;
}
