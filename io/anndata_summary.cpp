#include "io/anndata_summary.hpp"

#include <fmt/format.h>

#include <array>
#include <fstream>

#include "io/hdf5.hpp"
#include "io/input_error.hpp"

namespace longstrand::io {
namespace {

void read_shape(hid_t file, AnnDataSummary& summary) {
  const hdf5::Dataset x(H5Dopen2(file, "X", H5P_DEFAULT), "open dataset", "X");
  const hdf5::Dataspace space(H5Dget_space(x.get()), "read", "X");
  std::array<hsize_t, 2> extent{};
  if (H5Sget_simple_extent_ndims(space.get()) != 2) throw hdf5::Error("X is not a matrix");
  hdf5::check(H5Sget_simple_extent_dims(space.get(), extent.data(), nullptr), "read", "X");
  summary.n_obs = static_cast<std::int64_t>(extent[0]);
  summary.n_var = static_cast<std::int64_t>(extent[1]);
}

void read_scalar_of(hid_t group, const std::string& name, AnnDataSummary& summary) {
  if (hdf5::check(H5Oexists_by_name(group, name.c_str(), H5P_DEFAULT), "read", name) == 0) return;
  H5O_info_t object;
  hdf5::check(H5Oget_info_by_name(group, name.c_str(), &object, H5P_DEFAULT), "read", name);
  if (object.type != H5O_TYPE_DATASET) return;
  const hdf5::Dataset dataset(H5Dopen2(group, name.c_str(), H5P_DEFAULT), "open dataset", name);
  const hdf5::Dataspace space(H5Dget_space(dataset.get()), "read", name);
  if (H5Sget_simple_extent_type(space.get()) != H5S_SCALAR) return;
  const hdf5::Datatype type(H5Dget_type(dataset.get()), "read", name);
  switch (H5Tget_class(type.get())) {
    case H5T_STRING:
      if (H5Tis_variable_str(type.get()) > 0) summary.uns[name] = hdf5::read_string(group, name);
      break;
    case H5T_INTEGER:
      summary.uns[name] = hdf5::read_integer(group, name);
      break;
    case H5T_FLOAT:
      summary.uns[name] = hdf5::read_real(group, name);
      break;
    default:
      break;
  }
}

}  // namespace

AnnDataSummary summarize_anndata(const std::string& path) {
  AnnDataSummary summary;
  try {
    const auto file = hdf5::open_file(path);
    read_shape(file.get(), summary);
    summary.obs_columns = hdf5::member_names(hdf5::open_group(file.get(), "obs").get());
    const auto uns = hdf5::open_group(file.get(), "uns");
    for (const auto& name : hdf5::member_names(uns.get())) read_scalar_of(uns.get(), name, summary);
  } catch (const hdf5::Error& error) {
    throw InputError(
        fmt::format("'{}' is not an AnnData file as Longstrand writes it: {}", path, error.what()));
  }
  return summary;
}

bool is_hdf5(const std::string& path) {
  constexpr std::array<char, 8> kSignature = {'\x89', 'H', 'D', 'F', '\r', '\n', '\x1a', '\n'};
  std::array<char, 8> start{};
  std::ifstream file(path, std::ios::binary);
  return file.read(start.data(), start.size()) && start == kSignature;
}

}  // namespace longstrand::io
