#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace longstrand::io {

// Named values that a long computation needs to go on where it stopped, kept in one HDF5 file (trainer.h5).
// What they mean is the caller's affair; names are not empty and hold no '/'. Unsigned 64-bit values (random
// states) are stored as the std::int64_t of the same bits.
struct Snapshot {
  std::map<std::string, std::vector<float>> arrays;
  std::map<std::string, std::int64_t> integers;
  std::map<std::string, double> reals;
  std::map<std::string, std::string> strings;
};

// The same for saving, with arrays that stay where they are: they must live until save_snapshot returns.
struct SnapshotView {
  std::map<std::string, std::span<const float>> arrays;
  std::map<std::string, std::int64_t> integers;
  std::map<std::string, double> reals;
  std::map<std::string, std::string> strings;
};

SnapshotView view(const Snapshot& snapshot);

// Replaces the file as a whole: after a crash at any moment it holds the old snapshot or the new one, on the
// disk. A symbolic link is followed. Throws std::runtime_error with path and reason.
void save_snapshot(const std::string& path, const SnapshotView& snapshot);
Snapshot load_snapshot(const std::string& path);

}  // namespace longstrand::io
