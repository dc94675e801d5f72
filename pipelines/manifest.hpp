// The tables that labelled data comes in and goes out with. Tab-separated, UTF-8, a header line, lines that
// start with '#' and blank lines skipped.
//
//   MANIFEST.tsv   path label [split]
//                  a file of sequences, its class, and its part if it has one
//   split.tsv      path record record_index start end label split
//                  every window a classifier was trained or is tested on
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/atomic_file.hpp"

namespace longstrand::pipelines {

enum class Split : std::uint8_t { train, valid, test };

std::string_view split_name(Split split);
/// "train", "valid" or "test"; nothing for other names.
std::optional<Split> parse_split(std::string_view name);

struct ManifestEntry {
  std::string path;  // as written if absolute, else joined to the manifest's folder
  std::string label;
  std::optional<Split> split;  // of the whole file; all entries of a manifest have one, or none has
};

struct Manifest {
  std::vector<ManifestEntry> entries;  // in the file's order
  std::vector<std::string> labels;     // sorted bytewise, each once: position = class id

  std::int64_t class_of(const std::string& label) const;  // -1 for a label that is not there
};

/// Throws io::InputError naming file and line: no header, a missing column, an empty field, a path listed
/// twice, an unknown split, no entries.
Manifest read_manifest(const std::string& path);

struct SplitWindow {
  std::string path;  // of the sequence file, absolute
  std::string record;
  std::int64_t record_index = 0;  // in its file, from 0: names may repeat
  std::int64_t start = 0;         // 0-based
  std::int64_t end = 0;           // one past the last base
  std::string label;
  Split split = Split::train;
};

class SplitWriter {
 public:
  explicit SplitWriter(const std::string& path);
  void write(const SplitWindow& window);
  void commit() { file_.commit(); }

 private:
  io::AtomicFile file_;
};

/// Calls `take` for every window of split.tsv, in the file's order. Throws io::InputError naming file and
/// line.
void read_split(const std::string& path, const std::function<void(const SplitWindow&)>& take);

}  // namespace longstrand::pipelines
