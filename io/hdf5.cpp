#include "io/hdf5.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <type_traits>

namespace longstrand::io::hdf5 {
namespace {

// The innermost entry of HDF5's error stack is the cause; for system calls its text holds strerror's in
// quotes.
herr_t take_innermost(unsigned, const H5E_error2_t* entry, void* reason) {
  std::string text = entry->desc != nullptr ? entry->desc : "";
  constexpr std::string_view kQuote = "error message = '";
  if (const auto start = text.find(kQuote); start != std::string::npos) {
    text = text.substr(start + kQuote.size());
    text.resize(std::min(text.size(), text.find('\'')));
  }
  *static_cast<std::string*>(reason) = std::move(text);
  return 1;  // stops the walk
}

// Before anything else of HDF5 is called. A file that could not be closed because the disk is full stays open
// inside HDF5, whose clean-up at exit then crashes: ours closes every handle itself and needs none.
void prepare_library() {
  H5dont_atexit();
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

PropertyList property_list(hid_t kind) { return {H5Pcreate(kind), "set up", "property list"}; }

PropertyList file_access() {
  auto list = property_list(H5P_FILE_ACCESS);
  check(H5Pset_file_locking(list.get(), false, true), "set up", "file access");
  return list;
}

Dataspace make_space(std::span<const hsize_t> dimensions) {
  if (dimensions.empty()) {
    return {H5Screate(H5S_SCALAR), "create", "dataspace"};
  }
  return {H5Screate_simple(static_cast<int>(dimensions.size()), dimensions.data(), nullptr), "create",
          "dataspace"};
}

Dataset open_dataset(hid_t parent, const std::string& name) {
  return {H5Dopen2(parent, name.c_str(), H5P_DEFAULT), "open dataset", name};
}

std::int64_t element_count(const Dataset& dataset, const std::string& name) {
  const Dataspace space(H5Dget_space(dataset.get()), "read", name);
  return check(H5Sget_simple_extent_npoints(space.get()), "read", name);
}

Dataset open_scalar(hid_t parent, const std::string& name) {
  auto dataset = open_dataset(parent, name);
  if (element_count(dataset, name) != 1) {
    throw Error(fmt::format("cannot read '{}': one value expected", name));
  }
  return dataset;
}

Dataset write_scalar_raw(hid_t parent, const std::string& name, hid_t type, const void* value) {
  auto dataset = create_dataset(parent, name, type, {});
  check(H5Dwrite(dataset.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, value), "write", name);
  return dataset;
}

template <class T>
T read_scalar(hid_t parent, const std::string& name) {
  const auto dataset = open_scalar(parent, name);
  T value{};
  check(H5Dread(dataset.get(), native_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, &value), "read", name);
  return value;
}

void write_attribute_raw(hid_t object, const std::string& name, hid_t type,
                         std::span<const hsize_t> dimensions, const void* values) {
  const auto space = make_space(dimensions);
  const Attribute attribute(H5Acreate2(object, name.c_str(), type, space.get(), H5P_DEFAULT, H5P_DEFAULT),
                            "create attribute", name);
  check(H5Awrite(attribute.get(), type, values), "write attribute", name);
}

// At least one element, because HDF5 wants an address even where there is nothing to write.
std::vector<const char*> pointers_to(std::span<const std::string> values) {
  std::vector<const char*> pointers(std::max<std::size_t>(values.size(), 1));
  std::transform(values.begin(), values.end(), pointers.begin(), [](const auto& s) { return s.c_str(); });
  return pointers;
}

template <class T>
Datatype column_type() {
  if constexpr (std::is_same_v<T, std::string>) {
    return string_type();
  } else {
    return {H5Tcopy(native_type<T>()), "create", "type"};
  }
}

}  // namespace

std::int64_t check(std::int64_t result, std::string_view action, std::string_view name) {
  if (result < 0) {
    std::string reason;
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_innermost, &reason);
    throw Error(
        fmt::format("cannot {} '{}': {}", action, name, reason.empty() ? "HDF5 gives no reason" : reason));
  }
  return result;
}

File create_file(const std::string& path) {
  prepare_library();
  const auto access = file_access();
  return {H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()), "create", path};
}

File open_file(const std::string& path) {
  prepare_library();
  const auto access = file_access();
  return {H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), "open", path};
}

Group create_group(hid_t parent, const std::string& name) {
  return {H5Gcreate2(parent, name.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), "create group", name};
}

Group open_group(hid_t parent, const std::string& name) {
  return {H5Gopen2(parent, name.c_str(), H5P_DEFAULT), "open group", name};
}

std::vector<std::string> member_names(hid_t group) {
  std::vector<std::string> names;
  const auto add = [](hid_t, const char* name, const H5L_info_t*, void* list) -> herr_t {
    static_cast<std::vector<std::string>*>(list)->emplace_back(name);
    return 0;
  };
  check(H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, nullptr, add, &names), "list", "group");
  return names;
}

Datatype string_type() {
  Datatype type(H5Tcopy(H5T_C_S1), "create", "string type");
  check(H5Tset_size(type.get(), H5T_VARIABLE), "create", "string type");
  check(H5Tset_cset(type.get(), H5T_CSET_UTF8), "create", "string type");
  return type;
}

Dataset create_dataset(hid_t parent, const std::string& name, hid_t type,
                       std::span<const hsize_t> dimensions) {
  const auto space = make_space(dimensions);
  const auto creation = property_list(H5P_DATASET_CREATE);
  check(H5Pset_obj_track_times(creation.get(), false), "create", name);
  check(H5Pset_alloc_time(creation.get(), H5D_ALLOC_TIME_EARLY), "create", name);
  if (check(H5Tis_variable_str(type), "create", name) ==
      0) {  // references to nowhere must not stay in a file
    check(H5Pset_fill_time(creation.get(), H5D_FILL_TIME_NEVER), "create", name);
  }
  return {H5Dcreate2(parent, name.c_str(), type, space.get(), H5P_DEFAULT, creation.get(), H5P_DEFAULT),
          "create dataset", name};
}

void write_attribute(hid_t object, const std::string& name, const std::string& value) {
  const char* pointer = value.c_str();
  write_attribute_raw(object, name, string_type().get(), {}, &pointer);
}

void write_attribute(hid_t object, const std::string& name, std::span<const std::string> values) {
  const auto pointers = pointers_to(values);
  const std::array<hsize_t, 1> dimensions{values.size()};
  write_attribute_raw(object, name, string_type().get(), dimensions, pointers.data());
}

void write_attribute(hid_t object, const std::string& name, bool value) {
  const Datatype type(H5Tenum_create(H5T_NATIVE_INT8), "create", "bool type");
  for (const auto& [member, number] : {std::pair{"FALSE", std::int8_t{0}}, {"TRUE", std::int8_t{1}}}) {
    check(H5Tenum_insert(type.get(), member, &number), "create", "bool type");
  }
  const std::int8_t stored = value ? 1 : 0;
  write_attribute_raw(object, name, type.get(), {}, &stored);
}

Dataset write_scalar(hid_t parent, const std::string& name, const std::string& value) {
  const char* pointer = value.c_str();
  return write_scalar_raw(parent, name, string_type().get(), &pointer);
}

Dataset write_scalar(hid_t parent, const std::string& name, std::int64_t value) {
  return write_scalar_raw(parent, name, H5T_NATIVE_INT64, &value);
}

Dataset write_scalar(hid_t parent, const std::string& name, double value) {
  return write_scalar_raw(parent, name, H5T_NATIVE_DOUBLE, &value);
}

std::string read_string(hid_t parent, const std::string& name) {
  const auto dataset = open_scalar(parent, name);
  const auto type = string_type();
  char* text = nullptr;
  check(H5Dread(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, &text), "read", name);
  std::string value = text != nullptr ? text : "";
  check(H5free_memory(text), "read", name);
  return value;
}

std::int64_t read_integer(hid_t parent, const std::string& name) {
  return read_scalar<std::int64_t>(parent, name);
}

double read_real(hid_t parent, const std::string& name) { return read_scalar<double>(parent, name); }

void write_array(hid_t parent, const std::string& name, std::span<const float> values) {
  const std::array<hsize_t, 1> dimensions{values.size()};
  const auto dataset = create_dataset(parent, name, H5T_NATIVE_FLOAT, dimensions);
  check(H5Dwrite(dataset.get(), H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), "write",
        name);
}

std::vector<float> read_array(hid_t parent, const std::string& name) {
  const auto dataset = open_dataset(parent, name);
  std::vector<float> values(static_cast<std::size_t>(element_count(dataset, name)));
  check(H5Dread(dataset.get(), H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), "read", name);
  return values;
}

template <class T>
Column<T>::Column(hid_t parent, const std::string& name, std::int64_t length)
    : name_(name),
      dataset_(
          create_dataset(parent, name, column_type<T>().get(), std::array{static_cast<hsize_t>(length)})) {
  buffer_.reserve(kBufferedValues);
}

template <class T>
void Column<T>::flush() {
  if (buffer_.empty()) {
    return;
  }
  const hsize_t start = static_cast<hsize_t>(written_);
  const hsize_t count = buffer_.size();
  const Dataspace memory = make_space(std::span(&count, 1));
  const Dataspace space(H5Dget_space(dataset_.get()), "write", name_);
  check(H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &start, nullptr, &count, nullptr), "write", name_);
  const auto type = column_type<T>();
  const auto write = [&](const void* values) {
    check(H5Dwrite(dataset_.get(), type.get(), memory.get(), space.get(), H5P_DEFAULT, values), "write",
          name_);
  };
  if constexpr (std::is_same_v<T, std::string>) {
    write(pointers_to(buffer_).data());
  } else {
    write(buffer_.data());
  }
  written_ += std::ssize(buffer_);
  buffer_.clear();
}

template class Column<std::string>;
template class Column<std::int8_t>;
template class Column<std::int32_t>;
template class Column<std::int64_t>;

}  // namespace longstrand::io::hdf5
