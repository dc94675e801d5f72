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
#include <ctime>
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

Work read_bases(const std::string& path, int threads) {
  const auto source = open_sequences(path, {.decompression_threads = threads});
  Work work;
  RecordInfo record;
  std::vector<char> piece(1 << 16);
  while (source->next_record(record)) {
    ++work.records;
    while (const std::int64_t count = source->read_bases(piece)) work.bases += count;
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

struct Cost {
  double wall_us = 0;
  double cpu_us = 0;  // of all threads: what stays comparable where others use the machine too
};

double process_time_us() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) * 1e-3;
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

Cost median_cost(const std::function<void()>& call) {
  std::vector<double> wall_us;
  std::vector<double> cpu_us;
  for (int i = 0; i < kRepeats; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    const double cpu_begin_us = process_time_us();
    call();
    cpu_us.push_back(process_time_us() - cpu_begin_us);
    wall_us.push_back(
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count());
  }
  return {median(wall_us), median(cpu_us)};
}

using Reading = Work (*)(const std::string& path, int threads);

void print_speed(const char* name, const char* stage, int threads, const Work& work, const Cost& cost,
                 const Cost& floor) {
  std::printf(R"({"case":"%s","stage":"%s","decompression_threads":%d,"mb_per_s":%.0f,"mb_per_cpu_s":%.0f,)"
              R"("million_records_per_s":%.2f,"million_records_per_cpu_s":%.2f,"floor_share_of_cpu":%.2f})"
              "\n",
              name, stage, threads, static_cast<double>(work.bases) / cost.wall_us,
              static_cast<double>(work.bases) / cost.cpu_us, static_cast<double>(work.records) / cost.wall_us,
              static_cast<double>(work.records) / cost.cpu_us, floor.cpu_us / cost.cpu_us);
}

// Speed to bases, on one thread, and to tokens, on the reading thread of a stream whose consumer does
// nothing.
void measure(const char* name, const std::string& path, const ChunkStreamOptions& options, Reading floor) {
  for (const int threads : {0, 1}) {
    Work work;
    const Cost floor_cost = median_cost([&] { floor(path, threads); });
    const Cost bases_cost = median_cost([&] { work = read_bases(path, threads); });
    print_speed(name, "bases", threads, work, bases_cost, floor_cost);
    const Cost tokens_cost = median_cost([&] { work = stream_chunks(path, threads, options); });
    print_speed(name, "tokens", threads, work, tokens_cost, floor_cost);
  }
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
  measure("fasta plain", folder / "plain.fa", {}, read_blocks);
  measure("fasta bgzf", folder / "bgzf.fa.gz", {}, read_blocks);
  measure("bam", folder / "reads.bam", {.lanes = 256, .chunk_tokens = 256}, decode_records);
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
