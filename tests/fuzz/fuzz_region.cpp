// Regions on the command line, region files and .fai files: any bytes give regions within bounds or an
// InputError.

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>

#include "io/fasta_index.hpp"
#include "io/input_error.hpp"
#include "io/region.hpp"
#include "tests/support/temporary_directory.hpp"

namespace longstrand::io {
namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void parse_text(std::string_view text) {
  // Names are whatever has an even length, so that whole texts, prefixes and both are known.
  const auto is_name = [](const std::string& name) { return name.size() % 2 == 0; };
  try {
    const Region region = parse_region(text, is_name);
    require(is_name(region.name) && region.begin >= 0 && (region.end == -1 || region.end > region.begin));
  } catch (const InputError&) {
  }
}

void parse_file(const std::string& path) {
  try {
    for (const Region& region : read_regions_file(path))
      require(region.begin >= 0 && region.end > region.begin);
  } catch (const InputError&) {
  }
}

void parse_index(const std::string& fasta, bool is_bgzf) {
  try {
    const FastaIndex index(fasta, is_bgzf);
    const FastaIndex::Sequence* sequence = index.find("a");
    if (sequence == nullptr || sequence->length == 0) return;
    const auto position = index.locate(*sequence, sequence->length - 1);
    require(position.block >= 0 && position.within >= 0);
  } catch (const InputError&) {
  }
}

void write(const std::string& path, std::string_view content) {
  std::ofstream(path, std::ios::binary) << content;
}

}  // namespace
}  // namespace longstrand::io

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace longstrand::io;
  static const longstrand::test::TemporaryDirectory folder;
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  const auto write_as = [&](const char* name) { write(folder / name, text); };
  switch (data[0] % 5) {
    case 0:
      write_as("r.bed");
      parse_file(folder / "r.bed");
      break;
    case 1:
      write_as("r.tsv");
      parse_file(folder / "r.tsv");
      break;
    case 2:
      write_as("plain.fa.fai");
      parse_index(folder / "plain.fa", false);
      break;
    case 3:
      write_as("packed.fa.gzi");
      write(folder / "packed.fa.fai", "a\t1000\t3\t60\t61\n");
      parse_index(folder / "packed.fa", true);
      break;
    default:
      parse_text(text);
  }
  return 0;
}
