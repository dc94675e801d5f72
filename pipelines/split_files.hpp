// The windows of a split (split.tsv, manifest.hpp), file by file, as input of a chunk stream.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "io/chunk_stream.hpp"
#include "pipelines/listed_windows.hpp"
#include "pipelines/manifest.hpp"

namespace longstrand::pipelines {

struct SplitFile {
  std::string path;
  std::string label;
  WindowList windows;
};

/// The files that have windows in any of `parts`, in the order in which split.tsv names them. Throws
/// io::InputError if there are none, or if a file has more than one label.
std::vector<SplitFile> read_split_files(const std::string& split_path, std::span<const Split> parts);

/// The listed windows, each one a record.
io::ChunkStream open_split_files(const std::vector<SplitFile>& files, const io::SourceOptions& source_options,
                                 const io::ChunkStreamOptions& options);

}  // namespace longstrand::pipelines
