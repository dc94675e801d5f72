// Rows on their way to an .h5ad file: handed over in blocks, so that reads cost no system call each.
#pragma once

#include <chrono>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "io/anndata_writer.hpp"
#include "io/sequence_source.hpp"

namespace longstrand::pipelines {

class EmbeddingRows {
 public:
  /// `writer` must outlive it. Rows not flushed are lost with it.
  explicit EmbeddingRows(io::AnnDataWriter& writer) : writer_(writer) {}

  /// One row for a whole record. values: [width]. `strand` is '+', '-' or '.'.
  void add_record(const io::RecordInfo& record, char strand, std::span<const float> values);
  /// A row for each of the tokens [offset, offset + count) of a record. values: [count, width].
  void add_tokens(const io::RecordInfo& record, std::int64_t offset, std::int64_t count,
                  std::span<const float> values);
  void flush();

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::size_t kBlockValues = std::size_t{1} << 18;  // 1 MiB
  static constexpr auto kBlockAge = std::chrono::seconds(1);         // the most work that kill -9 costs

  void add(const io::ObsRow& row, std::span<const float> values);

  io::AnnDataWriter& writer_;
  std::deque<std::string> names_;  // what rows_ point to
  std::vector<io::ObsRow> rows_;
  std::vector<float> values_;
  Clock::time_point last_flush_ = Clock::now();
};

}  // namespace longstrand::pipelines
