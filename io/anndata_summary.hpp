#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

namespace longstrand::io {

// What an .h5ad file holds, without its values.
struct AnnDataSummary {
  std::int64_t n_obs = 0;
  std::int64_t n_var = 0;
  std::vector<std::string> obs_columns;                                        // sorted
  std::map<std::string, std::variant<std::string, std::int64_t, double>> uns;  // its scalars
};

// Throws InputError naming the path and what is missing.
AnnDataSummary summarize_anndata(const std::string& path);

// True if the file begins as HDF5 files do.
bool is_hdf5(const std::string& path);

}  // namespace longstrand::io
