#pragma once

#include <hdf5.h>

#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// HDF5's C API as owning handles and the few typed reads and writes that io/ needs. Every failure throws
// hdf5::Error with HDF5's own innermost reason; nothing is printed. Names are links below `parent`, a file or
// a group. Not for several threads at once: Debian's HDF5 is one library-wide state.
namespace longstrand::io::hdf5 {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws Error "cannot <action> '<name>': <HDF5's reason>" for a negative result; returns any other.
std::int64_t check(std::int64_t result, std::string_view action, std::string_view name);

template <herr_t (*close_function)(hid_t)>
class Handle {
 public:
  Handle(hid_t id, std::string_view action, std::string_view name) : id_(check(id, action, name)) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, H5I_INVALID_HID)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    return *this;
  }
  ~Handle() {
    if (id_ >= 0) {
      close_function(id_);
    }
  }
  hid_t get() const { return id_; }
  // Closing a file writes what HDF5 still holds: this one reports it, the destructor cannot.
  void close(std::string_view name) {
    check(close_function(std::exchange(id_, H5I_INVALID_HID)), "write", name);
  }

 private:
  hid_t id_;
};

using File = Handle<H5Fclose>;
using Group = Handle<H5Gclose>;
using Dataset = Handle<H5Dclose>;
using Dataspace = Handle<H5Sclose>;
using Datatype = Handle<H5Tclose>;
using Attribute = Handle<H5Aclose>;
using PropertyList = Handle<H5Pclose>;

// Creates (emptying what is there) or opens for reading. No HDF5 file locks: network file systems often lack
// them.
File create_file(const std::string& path);
File open_file(const std::string& path);
Group create_group(hid_t parent, const std::string& name);
Group open_group(hid_t parent, const std::string& name);
// The names in a group, sorted bytewise.
std::vector<std::string> member_names(hid_t group);

template <class T>
hid_t native_type();  // for float, double, int8_t, int32_t, int64_t
template <>
inline hid_t native_type<float>() {
  return H5T_NATIVE_FLOAT;
}
template <>
inline hid_t native_type<double>() {
  return H5T_NATIVE_DOUBLE;
}
template <>
inline hid_t native_type<std::int8_t>() {
  return H5T_NATIVE_INT8;
}
template <>
inline hid_t native_type<std::int32_t>() {
  return H5T_NATIVE_INT32;
}
template <>
inline hid_t native_type<std::int64_t>() {
  return H5T_NATIVE_INT64;
}
Datatype string_type();  // variable-length UTF-8

// Creates a dataset of the given extent, contiguous and unfiltered; its space is taken at once, unwritten. No
// dimension: a scalar. No modification times are stored, so equal content makes equal files.
Dataset create_dataset(hid_t parent, const std::string& name, hid_t type,
                       std::span<const hsize_t> dimensions);

void write_attribute(hid_t object, const std::string& name, const std::string& value);
void write_attribute(hid_t object, const std::string& name, std::span<const std::string> values);
void write_attribute(hid_t object, const std::string& name, bool value);  // as h5py stores numpy's bool

// Scalar datasets; reading throws when the dataset is absent or not a scalar.
Dataset write_scalar(hid_t parent, const std::string& name, const std::string& value);
Dataset write_scalar(hid_t parent, const std::string& name, std::int64_t value);
Dataset write_scalar(hid_t parent, const std::string& name, double value);
std::string read_string(hid_t parent, const std::string& name);
std::int64_t read_integer(hid_t parent, const std::string& name);
double read_real(hid_t parent, const std::string& name);

void write_array(hid_t parent, const std::string& name, std::span<const float> values);
std::vector<float> read_array(hid_t parent, const std::string& name);  // all elements, whatever the shape

// A 1-D dataset whose length is known from the start, written value by value through a small buffer. Values
// beyond the length throw. T: a native_type or std::string.
template <class T>
class Column {
 public:
  Column(hid_t parent, const std::string& name, std::int64_t length);
  void push(T value) {
    buffer_.push_back(std::move(value));
    if (buffer_.size() == kBufferedValues) {
      flush();
    }
  }
  void flush();  // once after the last value
  hid_t get() const { return dataset_.get(); }

 private:
  static constexpr std::size_t kBufferedValues = 16384;
  std::string name_;
  Dataset dataset_;
  std::vector<T> buffer_;
  std::int64_t written_ = 0;
};
extern template class Column<std::string>;
extern template class Column<std::int8_t>;
extern template class Column<std::int32_t>;
extern template class Column<std::int64_t>;

}  // namespace longstrand::io::hdf5
