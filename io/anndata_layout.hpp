#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "io/anndata_writer.hpp"
#include "io/hdf5.hpp"

namespace longstrand::io {

// The HDF5 side of an .h5ad file (FACTS: anndata's on-disk format, dataframe 0.2.0): everything but the
// values of X, for which space is reserved and left unwritten. Throws hdf5::Error.
class AnnDataLayout {
 public:
  // Creates the file with X float32 [n_obs, n_var] as its first object, so that x_offset() is the same for
  // all n_obs.
  AnnDataLayout(const std::string& path, std::int64_t n_obs, std::int64_t n_var);

  // Byte offset of X in the file; n_obs must not be 0, for then X has no place.
  std::int64_t x_offset() const;

  // Fills the vector with the next rows' origins; false when there are no more.
  using ObsSource = std::function<bool(std::vector<ObsRow>*)>;
  void write_annotations(const AnnDataSettings& settings, const ObsSource& next_obs);

  void close();

 private:
  std::string path_;
  std::int64_t n_obs_;
  std::int64_t n_var_;
  hdf5::File file_;
  hdf5::Dataset x_;
};

}  // namespace longstrand::io
