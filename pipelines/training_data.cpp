#include "pipelines/training_data.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "io/chunk_stream.hpp"
#include "io/input_error.hpp"
#include "io/utf8.hpp"
#include "pipelines/interrupt.hpp"
#include "pipelines/progress.hpp"

namespace longstrand::pipelines {
namespace {

namespace fs = std::filesystem;

// So that a run can be resumed from another working directory.
std::string absolute(const std::string& path) {
  return path.empty() || path == "-" ? path : fs::absolute(path).lexically_normal().string();
}

nlohmann::json describe_input(const TrainingInput& input) {
  std::error_code missing;  // standard input has neither size nor time
  const auto size = fs::file_size(input.path, missing);
  const auto changed = fs::last_write_time(input.path, missing).time_since_epoch();
  return {{"path", io::to_utf8(absolute(input.path))},
          {"bytes", missing ? -1 : static_cast<std::int64_t>(size)},
          {"changed_ns", missing ? 0 : std::chrono::duration_cast<std::chrono::nanoseconds>(changed).count()},
          {"label", input.label},
          {"split", input.split ? split_name(*input.split) : ""}};
}

nlohmann::json describe(const std::vector<TrainingInput>& inputs, const TrainingDataOptions& options) {
  nlohmann::json description = {{"window", options.windows.window},
                                {"stride", options.windows.stride},
                                {"valid", options.split.valid},
                                {"test", options.split.test},
                                {"seed", options.split.seed},
                                {"ambiguous", options.ambiguous},
                                {"reference", io::to_utf8(absolute(options.source.reference))},
                                {"inputs", nlohmann::json::array()}};
  for (const auto& input : inputs) description["inputs"].push_back(describe_input(input));
  return description;
}

// A description as earlier versions left it has paths as they were given.
nlohmann::json with_absolute_paths(nlohmann::json description) {
  for (auto& input : description.at("inputs")) input["path"] = absolute(input.at("path"));
  description["reference"] = absolute(description.value("reference", ""));
  return description;
}

// Takes a record's tokens as they come and, at its end, lays out its windows.
class RecordWriter {
 public:
  RecordWriter(TokenStoreWriter& store, const TrainingDataOptions& options,
               const std::function<void(const LaidWindow&)>& on_window)
      : store_(store), options_(options), on_window_(on_window) {}

  void begin() { start_ = store_.tokens(); }

  void end(const TrainingInput& input, const std::string& record, std::int64_t record_index) {
    const std::int64_t length = store_.tokens() - start_;
    const auto regions = input.split ? std::vector<SplitRegion>{{0, length, *input.split}}
                                     : split_record(record, length, options_.windows, options_.split);
    for (const auto& region : regions) {
      for (const auto& place : windows_of(region, options_.windows)) {
        if (usable(place)) add({input, record, record_index, place, region.split}, region);
      }
    }
  }

 private:
  bool usable(const WindowPlace& place) {
    const std::int64_t length = place.end - place.begin;
    return length >= 2 && 2 * store_.count_bases(start_ + place.begin, length) >= length;
  }

  void add(const LaidWindow& window, const SplitRegion& region) {
    if (on_window_) on_window_(window);
    if (window.split == Split::test) return;
    store_.add(window.split, {.start = start_ + window.place.begin,
                              .length = window.place.end - window.place.begin,
                              .room = region.end - window.place.end,
                              .label = window.input.label});
  }

  TokenStoreWriter& store_;
  const TrainingDataOptions& options_;
  const std::function<void(const LaidWindow&)>& on_window_;
  std::int64_t start_ = 0;  // of the record, in the store
};

void stream_input(const TrainingInput& input, const TrainingDataOptions& options, TokenStoreWriter& store,
                  RecordWriter& records, Progress& progress) {
  io::ChunkStream stream({input.path}, options.source, {.lanes = 1, .ambiguous = options.ambiguous});
  for (io::TokenChunk chunk; stream.next(chunk);) {
    stop_if_interrupted(/*resumable=*/true);
    if (chunk.starts[0] != 0) records.begin();
    store.append({chunk.tokens.data(), static_cast<std::size_t>(chunk.valid[0])});
    if (chunk.ends[0] != 0) records.end(input, chunk.records[0].name, chunk.record_index[0]);
    progress.update(store.tokens());
  }
  stop_if_interrupted(/*resumable=*/true);  // which ends standard input
}

}  // namespace

TokenStore make_training_data(const fs::path& folder, std::vector<TrainingInput> inputs,
                              const TrainingDataOptions& options,
                              const std::function<void(const LaidWindow&)>& on_window) {
  const auto description = describe(inputs, options);
  std::stable_sort(inputs.begin(), inputs.end(),
                   [](const auto& a, const auto& b) { return a.label < b.label; });
  TokenStoreWriter writer(folder);
  RecordWriter records(writer, options, on_window);
  {
    Progress progress("reading");
    for (const auto& input : inputs) stream_input(input, options, writer, records, progress);
  }
  writer.finish(description);
  TokenStore store(folder);
  if (store.window_count(Split::train) == 0) {
    throw io::InputError(
        "there is nothing to train on: the inputs hold no training window with enough A, C, G, T; "
        "check the inputs, the window and the share that is held out");
  }
  return store;
}

std::optional<TokenStore> find_training_data(const fs::path& folder, const std::vector<TrainingInput>& inputs,
                                             const TrainingDataOptions& options) {
  if (!fs::exists(folder / "store.json")) return std::nullopt;
  TokenStore store(folder);
  const auto asked = describe(inputs, options);
  const auto made = with_absolute_paths(store.description());
  for (const auto& [key, value] : asked.items()) {
    if (made.value(key, nlohmann::json()) == value) continue;
    throw io::InputError(fmt::format(
        "'{}' was made with other {}: give the run's own inputs and options to resume it, or begin "
        "it again with --force",
        folder.string(), key == "inputs" ? "input files, or they have changed since" : key));
  }
  return store;
}

}  // namespace longstrand::pipelines
