// FASTA and FASTQ, plain or compressed: any bytes give records or an InputError, and the same ones whatever
// the size of the pieces.

#include <htslib/hts_log.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "io/byte_stream.hpp"
#include "io/fastx_source.hpp"
#include "io/htslib.hpp"
#include "io/input_error.hpp"

namespace longstrand::io {
namespace {

HFilePtr open_memory(const std::uint8_t* data, std::size_t size) {
  void* copy = std::malloc(size);  // HTSlib frees it
  std::memcpy(copy, data, size);
  return HFilePtr(hopen("mem:", "r:", copy, size));
}

// What can be seen of the input: its records, and the error at the end. The bases of the last read before an
// error are lost with it, and depend on its size; so a record counts only once it is complete.
std::string transcript(const std::uint8_t* data, std::size_t size, SequenceKind kind,
                       std::size_t piece_bases) {
  std::string seen;
  try {
    FastxSource source(ByteStream(open_memory(data, size), "input", 0), kind);
    std::vector<char> piece(piece_bases);
    RecordInfo record;
    while (source.next_record(record)) {
      std::string text = "\n>" + record.name + " " + record.description + "\n";
      while (const std::int64_t count = source.read_bases(piece)) {
        text.append(piece.data(), static_cast<std::size_t>(count));
      }
      seen += text;
    }
  } catch (const InputError& error) {
    seen.append("\n").append(error.what());
  }
  return seen;
}

}  // namespace
}  // namespace longstrand::io

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace longstrand::io;
  if (size == 0) return 0;
  hts_set_log_level(HTS_LOG_OFF);
  for (const SequenceKind kind : {SequenceKind::fasta, SequenceKind::fastq}) {
    if (transcript(data, size, kind, 1) != transcript(data, size, kind, 4096)) std::abort();
  }
  return 0;
}
