#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "io/alphabet.hpp"
#include "io/sequence_source.hpp"
#include "pipelines/token_store.hpp"
#include "pipelines/window_layout.hpp"

namespace longstrand::pipelines {

struct TrainingInput {
  std::string path;
  std::int64_t label = -1;                    // class id; -1 without classes
  std::optional<Split> split = std::nullopt;  // of the whole file; nothing: SplitRule decides
};

struct TrainingDataOptions {
  WindowRule windows = {};
  SplitRule split = {};
  io::SourceOptions source = {};
  io::Ambiguous ambiguous = io::Ambiguous::n;
};

/// A window that was laid out, of any part.
struct LaidWindow {
  const TrainingInput& input;
  const std::string& record;
  std::int64_t record_index;  // in its file, from 0
  WindowPlace place;
  Split split;
};

/// Streams the inputs, one pass, into a token store in `folder`, class after class. Windows with more than
/// half N, or of a single base, are left out; those for testing only go to `on_window`, which is called for
/// every window. Throws what reading throws, Interrupted, and io::InputError where nothing is left to train
/// on.
TokenStore make_training_data(const std::filesystem::path& folder, std::vector<TrainingInput> inputs,
                              const TrainingDataOptions& options,
                              const std::function<void(const LaidWindow&)>& on_window = {});

/// The store that make_training_data left in `folder`; nothing if there is none yet. Throws io::InputError if
/// it was made from other inputs (paths, sizes, times of change) or other options.
std::optional<TokenStore> find_training_data(const std::filesystem::path& folder,
                                             const std::vector<TrainingInput>& inputs,
                                             const TrainingDataOptions& options);

}  // namespace longstrand::pipelines
