#include "pipelines/split_files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "io/input_error.hpp"

namespace longstrand::pipelines {

std::vector<SplitFile> read_split_files(const std::string& split_path, std::span<const Split> parts) {
  std::vector<SplitFile> files;
  std::map<std::string, std::size_t> index_of;  // by path
  read_split(split_path, [&](const SplitWindow& window) {
    if (std::ranges::find(parts, window.split) == parts.end()) return;
    const auto [found, is_new] = index_of.try_emplace(window.path, files.size());
    if (is_new) files.push_back({.path = window.path, .label = window.label, .windows = {}});
    SplitFile& file = files[found->second];
    if (file.label != window.label) {
      throw io::InputError(fmt::format("'{}': '{}' has the labels '{}' and '{}': a file has one class",
                                       split_path, window.path, file.label, window.label));
    }
    ListedRecord& record = file.windows[window.record_index];
    if (record.windows.empty()) record.name = window.record;
    if (record.name != window.record) {
      throw io::InputError(fmt::format("'{}': record {} of '{}' has the names '{}' and '{}'", split_path,
                                       window.record_index, window.path, record.name, window.record));
    }
    record.windows.push_back({window.start, window.end});
  });
  if (files.empty())
    throw io::InputError(fmt::format("'{}' has no {} windows", split_path, split_name(parts.front())));
  for (SplitFile& file : files) {
    for (auto& [index, record] : file.windows)
      std::ranges::stable_sort(record.windows, {}, &ListedWindow::begin);
  }
  return files;
}

io::ChunkStream open_split_files(const std::vector<SplitFile>& files, const io::SourceOptions& source_options,
                                 const io::ChunkStreamOptions& options) {
  std::vector<io::ChunkInput> inputs;
  inputs.reserve(files.size());
  for (const SplitFile& file : files) {
    inputs.push_back({.path = file.path,
                      .open =
                          [file, source_options] {
                            return std::make_unique<ListedWindows>(
                                io::open_sequences(file.path, source_options), file.windows, file.path);
                          },
                      .size = bases_of(file.windows)});
  }
  return {std::move(inputs), options};
}

}  // namespace longstrand::pipelines
