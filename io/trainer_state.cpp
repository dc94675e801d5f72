#include "io/trainer_state.hpp"

#include <fcntl.h>
#include <fmt/format.h>

#include <cassert>

#include "io/file_descriptor.hpp"
#include "io/hdf5.hpp"

namespace longstrand::io {
namespace {

// Calls write(group, name, value) for each value of a map, in a group of its own.
template <class Map, class Write>
void write_group(const hdf5::File& file, const std::string& group_name, const Map& values, Write write) {
  const auto group = hdf5::create_group(file.get(), group_name);
  for (const auto& [name, value] : values) {
    assert(!name.empty() && name.find('/') == std::string::npos);
    write(group.get(), name, value);
  }
}

template <class Map, class Read>
void read_group(const hdf5::File& file, const std::string& group_name, Map* values, Read read) {
  const auto group = hdf5::open_group(file.get(), group_name);
  for (const auto& name : hdf5::member_names(group.get())) {
    values->emplace(name, read(group.get(), name));
  }
}

void write_values(const std::string& path, const SnapshotView& snapshot) {
  auto file = hdf5::create_file(path);
  const auto write_scalar = [](hid_t group, const auto& name, const auto& value) {
    hdf5::write_scalar(group, name, value);
  };
  write_group(file, "arrays", snapshot.arrays, hdf5::write_array);
  write_group(file, "integers", snapshot.integers, write_scalar);
  write_group(file, "reals", snapshot.reals, write_scalar);
  write_group(file, "strings", snapshot.strings, write_scalar);
  file.close(path);
}

}  // namespace

SnapshotView view(const Snapshot& snapshot) {
  return {.arrays = {snapshot.arrays.begin(), snapshot.arrays.end()},
          .integers = snapshot.integers,
          .reals = snapshot.reals,
          .strings = snapshot.strings};
}

void save_snapshot(const std::string& path, const SnapshotView& snapshot) {
  const auto destination = follow_link(path);
  const auto temporary = destination + ".partial";
  try {
    write_values(temporary, snapshot);
    FileDescriptor(temporary, O_RDWR).sync();
    replace_file(temporary, destination);
  } catch (const hdf5::Error& error) {
    remove_quietly(temporary);
    throw std::runtime_error(fmt::format("cannot save '{}': {}", path, error.what()));
  } catch (...) {
    remove_quietly(temporary);
    throw;
  }
}

Snapshot load_snapshot(const std::string& path) {
  try {
    const auto file = hdf5::open_file(path);
    Snapshot snapshot;
    read_group(file, "arrays", &snapshot.arrays, hdf5::read_array);
    read_group(file, "integers", &snapshot.integers, hdf5::read_integer);
    read_group(file, "reals", &snapshot.reals, hdf5::read_real);
    read_group(file, "strings", &snapshot.strings, hdf5::read_string);
    return snapshot;
  } catch (const hdf5::Error& error) {
    throw std::runtime_error(fmt::format("cannot load '{}': {}", path, error.what()));
  }
}

}  // namespace longstrand::io
