#include "io/sequence_statistics.hpp"

#include <algorithm>
#include <array>
#include <vector>

namespace longstrand::io {
namespace {

constexpr std::size_t kPieceBases = std::size_t{1} << 16;

// How often each byte occurs. Four tables, because runs of one base would make each count wait for the last.
class ByteCounts {
 public:
  void add(std::span<const char> bytes) {
    std::size_t i = 0;
    for (; i + kTables <= bytes.size(); i += kTables) {
      for (std::size_t table = 0; table < kTables; ++table) ++counts_[table][index(bytes[i + table])];
    }
    for (; i < bytes.size(); ++i) ++counts_[0][index(bytes[i])];
  }

  std::int64_t of(char byte) const {
    std::int64_t sum = 0;
    for (const auto& table : counts_) sum += table[index(byte)];
    return sum;
  }

  std::int64_t of_either_case(char upper) const {
    return of(upper) + of(static_cast<char>(upper - 'A' + 'a'));
  }

 private:
  static constexpr std::size_t kTables = 4;
  static std::size_t index(char byte) { return static_cast<unsigned char>(byte); }

  std::array<std::array<std::int64_t, 256>, kTables> counts_{};
};

}  // namespace

SequenceStatistics sequence_statistics(const std::string& path, const SourceOptions& options) {
  const auto source = open_sequences(path, options);
  SequenceStatistics result;
  result.kind = source->kind();
  ByteCounts counts;
  std::vector<char> piece(kPieceBases);
  RecordInfo record;
  while (source->next_record(record)) {
    ++result.records;
    std::int64_t length = 0;
    while (const std::int64_t count = source->read_bases(piece)) {
      counts.add(std::span(piece).first(static_cast<std::size_t>(count)));
      length += count;
    }
    result.bases += length;
    result.longest = std::max(result.longest, length);
  }
  result.a = counts.of_either_case('A');
  result.c = counts.of_either_case('C');
  result.g = counts.of_either_case('G');
  result.t = counts.of_either_case('T') + counts.of_either_case('U');
  result.n = counts.of_either_case('N');
  result.other = result.bases - result.a - result.c - result.g - result.t - result.n;
  for (char letter = 'a'; letter <= 'z'; ++letter) result.soft_masked += counts.of(letter);
  return result;
}

}  // namespace longstrand::io
