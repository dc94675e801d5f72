#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "io/file_descriptor.hpp"
#include "io/journal.hpp"

namespace longstrand::io {

// What a row of X stands for: one pooled sequence (record, window or region), or one token of it.
enum class RowKind { kPooled, kTokens };

struct AnnDataSettings {
  std::int64_t n_var = 0;  // values in a row, at least 1
  RowKind rows = RowKind::kPooled;
  // Everything that decides the rows' values and order (model, inputs, pooling, windows ...), in any form;
  // work is resumed only where it is the same.
  std::string fingerprint;
  std::map<std::string, std::variant<std::string, std::int64_t, double>> uns;  // stored as they are
};

// Where a row of X comes from. Coordinates are 0-based and half-open. With RowKind::kTokens one ObsRow is a
// run of neighbouring tokens and stands for end - start rows.
struct ObsRow {
  std::string_view record;
  std::int64_t start = 0;
  std::int64_t end = 0;
  char strand = '+';        // '+', '-' or '.'; not stored for tokens
  std::int64_t length = 0;  // tokens pooled: N counts, padding does not; not stored for tokens
};

// Writes embeddings to an .h5ad file in AnnData's layout, row after row, in memory that does not grow with
// them; only finish() with RowKind::kTokens holds the distinct record names, which become categories.
//
//   X    float32 [n_obs, n_var], contiguous
//   obs  pooled: record, start, end, strand, length, and as index the region "record:start+1-end", to which
//   "-ROW"
//        is added where the name has been used before (in files of tens of millions of rows also to a few
//        others); tokens: record, position, and as index the row's number
//   var  index dim_0, dim_1, ...;   uns  the settings' map
//
// HDF5 cannot be trusted after a crash, so until finish() no HDF5 library touches the rows. append() writes
// them straight to NAME.partial, at the offset at which X will lie in the finished file, and then a record
// with their checksum and origin to a journal, NAME.partial.obs. finish() lets HDF5 write a file in which the
// space of X is left out (NAME.partial.h5, sparse), copies what lies before and behind X into NAME.partial,
// and renames that to NAME. The rows are therefore written once, kill -9 loses nothing that append() returned
// from, and after a power failure the checksums tell which rows are whole.
//
// Errors of the system throw std::runtime_error; the object can then only be destroyed. Without finish() the
// partial files stay, to be resumed, unless no row is in them. A symbolic link is followed: all of this
// happens beside its target.
class AnnDataWriter {
 public:
  enum class Start { kFresh, kResume };  // kResume continues partial files if there are any

  AnnDataWriter(const std::string& path, AnnDataSettings settings, Start start);
  AnnDataWriter(const AnnDataWriter&) = delete;
  AnnDataWriter& operator=(const AnnDataWriter&) = delete;
  ~AnnDataWriter();

  // Rows complete so far, those of resumed files included: the caller goes on after them.
  std::int64_t rows() const { return rows_; }

  // values: [rows of obs, n_var], row-major. All rows of one call are kept by a crash, or none.
  void append(std::span<const ObsRow> obs, std::span<const float> values);

  // Returns when everything appended so far is safe from power failure too.
  void flush();

  // Completes the file under its final name; nothing may follow.
  void finish();

 private:
  void start_fresh();
  bool resume();
  bool rows_match(std::int64_t count, std::uint32_t checksum) const;
  std::int64_t row_bytes() const { return settings_.n_var * std::int64_t{sizeof(float)}; }
  std::int64_t end_of_rows() const { return x_offset_ + rows_ * row_bytes(); }
  void write_layout(const std::string& layout_path);
  void graft(const std::string& layout_path);

  std::string path_;
  AnnDataSettings settings_;
  Journal journal_;
  FileDescriptor rows_file_;
  std::int64_t x_offset_ = 0;     // byte offset of X in rows_file_
  std::int64_t first_block_ = 0;  // position in the journal behind the settings
  std::int64_t rows_ = 0;
  bool finished_ = false;
};

}  // namespace longstrand::io
