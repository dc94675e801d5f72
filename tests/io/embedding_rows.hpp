// The rows that the tests of AnnDataWriter write, and that check_anndata.py expects.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "io/anndata_writer.hpp"

namespace longstrand::test {

inline constexpr std::int64_t kRowsPerRecord = 1000;

inline io::AnnDataSettings embedding_settings(io::RowKind kind, std::int64_t n_var) {
  return {.n_var = n_var,
          .rows = kind,
          .fingerprint = "model=abc pool=mean",
          .uns = {{"model", "sha256:abc"}, {"seed", std::int64_t{42}}, {"learning_rate", 0.5}}};
}

inline std::vector<float> embedding_values(std::int64_t first_row, std::int64_t count, std::int64_t n_var) {
  std::vector<float> values;
  values.reserve(static_cast<std::size_t>(count * n_var));
  for (std::int64_t row = first_row; row < first_row + count; ++row) {
    for (std::int64_t j = 0; j < n_var; ++j) {
      values.push_back(static_cast<float>(static_cast<double>(row) + static_cast<double>(j) / 1024));
    }
  }
  return values;
}

// Appends rows [first_row, first_row + count) in one call; token rows must not cross a record's end.
inline void append_rows(io::AnnDataWriter& writer, io::RowKind kind, std::int64_t first_row,
                        std::int64_t count, std::int64_t n_var) {
  const auto values = embedding_values(first_row, count, n_var);
  const auto name = [](std::int64_t row) { return "record " + std::to_string(row / kRowsPerRecord); };
  if (kind == io::RowKind::kTokens) {
    const auto record = name(first_row);
    const auto start = first_row % kRowsPerRecord;
    writer.append(std::vector<io::ObsRow>{{.record = record, .start = start, .end = start + count}}, values);
    return;
  }
  std::vector<std::string> names;
  names.reserve(static_cast<std::size_t>(count));
  std::vector<io::ObsRow> obs;
  for (std::int64_t row = first_row; row < first_row + count; ++row) {
    const auto start = row % kRowsPerRecord * 100;
    obs.push_back({.record = names.emplace_back(name(row)),
                   .start = start,
                   .end = start + 150,
                   .strand = "+-."[row % 3],
                   .length = 150 - row % 7});
  }
  writer.append(obs, values);
}

// Continues from the writer's last row to n_obs in batches of at most `batch` rows.
inline void append_until(io::AnnDataWriter& writer, io::RowKind kind, std::int64_t n_obs, std::int64_t n_var,
                         std::int64_t batch) {
  while (writer.rows() < n_obs) {
    const auto record_left = kRowsPerRecord - writer.rows() % kRowsPerRecord;
    const auto count = std::min({batch, record_left, n_obs - writer.rows()});
    append_rows(writer, kind, writer.rows(), count, n_var);
  }
}

}  // namespace longstrand::test
