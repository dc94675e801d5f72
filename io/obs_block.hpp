#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "io/anndata_writer.hpp"

namespace longstrand::io {

// One journal record of AnnDataWriter: the origin of the rows of one append() and the CRC-32 of their values.
struct ObsBlock {
  std::uint32_t checksum = 0;
  std::vector<ObsRow> obs;
};

std::string encode(std::uint32_t checksum, std::span<const ObsRow> obs);
// The rows' names point into `bytes`, which encode() must have made.
ObsBlock decode(const std::string& bytes);

// Rows of X that these stand for.
std::int64_t count_rows(RowKind kind, std::span<const ObsRow> obs);

}  // namespace longstrand::io
