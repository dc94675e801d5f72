// Windows named in a list, read as records of their own from a source that is streamed once.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "io/sequence_source.hpp"

namespace longstrand::pipelines {

struct ListedWindow {
  std::int64_t begin = 0;  // 0-based
  std::int64_t end = 0;    // one past the last base
};

struct ListedRecord {
  std::string name;
  std::vector<ListedWindow> windows;  // by begin; they may overlap
};

/// The records wanted of a source, by their number in it, from 0: names may repeat, as those of mates do.
using WindowList = std::map<std::int64_t, ListedRecord>;

/// Of all windows of a list.
std::int64_t bases_of(const WindowList& windows);

/// Delivers, for every record of the list, its windows in order; other records are passed over. Memory is
/// that of the overlap of neighbouring windows. A record of another name than the list's, or one that ends
/// before its windows do, throws io::InputError.
class ListedWindows final : public io::SequenceSource {
 public:
  /// `path` is what messages call the source. Throws std::invalid_argument for a list that is not sorted.
  ListedWindows(std::unique_ptr<io::SequenceSource> source, WindowList windows, std::string path);

  bool next_record(io::RecordInfo& record) override;
  std::int64_t read_bases(std::span<char> out) override;
  io::SequenceKind kind() const override { return source_->kind(); }
  double share_read() const override;

 private:
  bool next_window_of_record();
  bool next_listed_record();
  [[noreturn]] void fail(const std::string& what) const;
  void skip_to(std::int64_t position);
  std::int64_t read_from_overlap(std::span<char> out);
  std::int64_t read_from_source(std::span<char> out);

  std::unique_ptr<io::SequenceSource> source_;
  WindowList windows_;
  std::string path_;
  io::RecordInfo record_;                 // the source's
  std::int64_t record_index_ = -1;        // of record_ in the source
  const ListedRecord* listed_ = nullptr;  // record_ in the list
  std::size_t window_ = 0;                // index into listed_->windows
  std::int64_t total_bases_ = 0;          // of all windows
  std::int64_t begun_bases_ = 0;          // of the current window and those before it
  std::int64_t position_ = 0;             // of the next base to deliver, in the record
  std::int64_t source_position_ = 0;      // of the next base that the source gives
  std::string overlap_;                   // the bases before source_position_ that are still wanted
};

}  // namespace longstrand::pipelines
