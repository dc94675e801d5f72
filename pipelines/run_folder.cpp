#include "pipelines/run_folder.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <stdexcept>
#include <system_error>

#include "io/atomic_file.hpp"
#include "pipelines/command_line.hpp"
#include "pipelines/logging.hpp"

namespace longstrand::pipelines {
namespace {

namespace fs = std::filesystem;

const char* const kConfig = "config.ini";
const char* const kState = "trainer.h5";

// Options that may differ from those the run was begun with.
const std::set<std::string> kFree = {"threads", "chunk", "device", "save-every", "valid-every"};

// Repeated keys (inputs) are joined. Earlier versions wrote the names of files as they were given.
std::map<std::string, std::string> parse_config_text(std::istream& text) {
  std::map<std::string, std::string> values;
  for (std::string line; std::getline(text, line);) {
    const auto equals = line.find('=');
    if (equals == std::string::npos) continue;
    const std::string name = line.substr(0, equals);
    auto& value = values[name];
    value += fmt::format("{}{}", value.empty() ? "" : " ", config_value(name, line.substr(equals + 1)));
  }
  return values;
}

std::span<const float> span_of(View<const float, 1> view) {
  return {view.data, static_cast<std::size_t>(view.size())};
}

// A value of trainer.h5.
template <class Map>
const typename Map::mapped_type& saved_value(const Map& values, const char* name, const std::string& path) {
  const auto found = values.find(name);
  if (found != values.end()) return found->second;
  throw std::runtime_error(fmt::format(
      "'{}' has no '{}': it is not the state of a run; begin the run again with --force", path, name));
}

// Puts a folder in the place of another, so that at any moment the old or the new one is there.
void replace_folder(const fs::path& from, const fs::path& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) {
    fs::remove_all(from);
    return;
  }
  fs::remove_all(to);  // a first save, or a file system that cannot exchange
  fs::rename(from, to);
}

}  // namespace

RunFolder::RunFolder(const fs::path& path, RunStart start) : path_(path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error)
    throw std::runtime_error(
        fmt::format("cannot create the folder '{}': {}", path.string(), error.message()));
  lock_.emplace(file(".lock"), O_RDWR | O_CREAT);
  lock_->require_lock();
  if (!fs::exists(file(kConfig))) return;
  if (start == RunStart::fresh) {
    throw std::runtime_error(
        fmt::format("'{}' holds a run already: go on with it by --resume, begin it again by "
                    "--force, or choose another folder",
                    path.string()));
  }
  if (start == RunStart::overwrite) remove_run();
}

void RunFolder::remove_run() const {
  fs::remove(file(kConfig));  // first: what is left of a removal that was interrupted is no run
  for (const char* name : {"data", "data.partial", "metrics.jsonl", kState, "model", "best", "model.partial",
                           "best.partial", "split.tsv"}) {
    fs::remove_all(file(name));
  }
}

void RunFolder::settle_config(const std::string& config) {
  std::ifstream existing(file(kConfig));
  if (!existing) {
    io::write_file(file(kConfig), config);
    return;
  }
  const auto begun = parse_config_text(existing);
  std::istringstream text(config);
  const auto asked = parse_config_text(text);
  const auto value = [](const auto& values, const std::string& name) {
    const auto found = values.find(name);
    return found == values.end() ? std::string() : found->second;
  };
  std::set<std::string> names;
  for (const auto& [name, ignored] : begun) names.insert(name);
  for (const auto& [name, ignored] : asked) names.insert(name);
  for (const auto& name : names) {
    if (kFree.contains(name) || value(begun, name) == value(asked, name)) continue;
    throw std::runtime_error(
        fmt::format("'{}' was begun with --{} '{}', now it is '{}': resume with the same options (--config "
                    "{} holds them)",
                    path_.string(), name, value(begun, name), value(asked, name), file(kConfig)));
  }
}

bool RunFolder::has_state(const fs::path& path) { return fs::exists(path / kState); }

Model RunFolder::load_model() const {
  Model model = Model::load(path_ / "model");
  const auto snapshot = io::load_snapshot(file(kState));
  const auto weights = model.parameters().all();
  const auto& saved = saved_value(snapshot.arrays, "weights", file(kState));
  if (std::ssize(saved) != weights.size()) {
    throw std::runtime_error(
        fmt::format("'{}' has {} weights, the model beside it {}: begin the run again with --force",
                    file(kState), saved.size(), weights.size()));
  }
  std::copy(saved.begin(), saved.end(), weights.data);
  return model;
}

RunState RunFolder::load_state(Trainer& trainer) const {
  const auto path = file(kState);
  const auto snapshot = io::load_snapshot(path);
  trainer.set_state({.first_moment = saved_value(snapshot.arrays, "first_moment", path),
                     .second_moment = saved_value(snapshot.arrays, "second_moment", path),
                     .updates = saved_value(snapshot.integers, "updates", path)});
  const auto open_line = snapshot.strings.find("open_line");
  return {.step = saved_value(snapshot.integers, "step", path),
          .best = {.step = saved_value(snapshot.integers, "best_step", path),
                   .loss = saved_value(snapshot.reals, "best_loss", path),
                   .accuracy = saved_value(snapshot.reals, "best_accuracy", path)},
          .open_line = open_line == snapshot.strings.end() ? "" : open_line->second};
}

void RunFolder::save(const Model& model, const Trainer& trainer, const RunState& state) const {
  save_model(model, "model");
  const auto moments = trainer.state();
  io::save_snapshot(
      file(kState),
      {.arrays = {{"weights", span_of(model.parameters().all())},
                  {"first_moment", moments.first_moment},
                  {"second_moment", moments.second_moment}},
       .integers = {{"step", state.step}, {"updates", moments.updates}, {"best_step", state.best.step}},
       .reals = {{"best_loss", state.best.loss}, {"best_accuracy", state.best.accuracy}},
       .strings = {{"open_line", state.open_line}}});
}

void RunFolder::save_model(const Model& model, const char* name) const {
  const fs::path partial = file(name) + ".partial";
  fs::remove_all(partial);  // of a save that was killed
  model.save(partial);
  replace_folder(partial, file(name));
}

}  // namespace longstrand::pipelines
