// A training run on disk:
//
//   data/          what is trained on (token_store.hpp)
//   config.ini     the options as resolved; written before the first step, it marks the folder as a run
//   metrics.jsonl  one object a step
//   trainer.h5     everything that the next step depends on: weights, moments, step, best so far
//   model/ best/   the weights of trainer.h5, and those of the best validation
//   split.tsv      the windows of finetune
//   *_mqc.json     figures for MultiQC
//
// A save replaces model/ and then trainer.h5, each as a whole. Killed in between, a run resumes from the
// older trainer.h5 and makes the same model/ again; metrics.jsonl is cut back to the step of trainer.h5.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "io/file_descriptor.hpp"
#include "io/trainer_state.hpp"
#include "src/trainer.hpp"

namespace longstrand::pipelines {

enum class RunStart : std::uint8_t {
  fresh,      // the folder must not hold a run
  resume,     // goes on with the run in it, or begins one
  overwrite,  // removes the run in it
};

/// The best validation of a run.
struct BestResult {
  std::int64_t step = 0;  // 0: none yet
  double loss = 0;
  double accuracy = 0;
};

struct RunState {
  std::int64_t step = 0;  // steps done
  BestResult best;
  std::string open_line;  // the last step's metrics, as JSON, while its validation is not done; else empty
};

class RunFolder {
 public:
  /// Creates the folder where it is missing and locks it until destruction. Throws std::runtime_error if
  /// another process has it, if it cannot be written, or if it holds a run and `start` is fresh.
  RunFolder(const std::filesystem::path& path, RunStart start);

  std::string file(const char* name) const { return (path_ / name).string(); }
  const std::filesystem::path& path() const { return path_; }

  /// Writes config.ini; in a run that is resumed, compares it instead and throws std::runtime_error for an
  /// option that has changed, unless it only says how the work is done (threads, how often to save).
  void settle_config(const std::string& config);

  /// True if a save can be resumed.
  bool has_state() const { return has_state(path_); }
  static bool has_state(const std::filesystem::path& path);
  /// The model of the last save, with the weights of trainer.h5: a run killed between the two has a newer
  /// model/.
  Model load_model() const;
  /// Sets a trainer of that model to the last save.
  RunState load_state(Trainer& trainer) const;
  void save(const Model& model, const Trainer& trainer, const RunState& state) const;
  void save_best(const Model& model) const { save_model(model, "best"); }

 private:
  void save_model(const Model& model, const char* name) const;
  void remove_run() const;

  std::filesystem::path path_;
  std::optional<io::FileDescriptor> lock_;
};

}  // namespace longstrand::pipelines
