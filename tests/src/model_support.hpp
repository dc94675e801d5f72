// Running models in tests: records through Inference, golden files, comparisons.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "src/inference.hpp"
#include "src/safetensors.hpp"
#include "src/trainer.hpp"
#include "support/device_under_test.hpp"
#include "support/random.hpp"

namespace longstrand::test {

using Tokens = std::vector<std::uint8_t>;

/// On the device under test.
inline ExecutionOptions on_device(ExecutionOptions options = {}) {
  options.device = device_under_test();
  return options;
}

inline std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(LONGSTRAND_TEST_DATA) / "golden" / name;
}

inline std::vector<float> read_floats(SafetensorsReader& file, const std::string& name) {
  const TensorInfo& info = file.tensors().at(name);
  std::vector<float> values(static_cast<std::size_t>(info.size()));
  file.read(name, info.shape, values);
  return values;
}

/// The lanes of a [B, L] uint8 tensor.
inline std::vector<Tokens> read_lanes(SafetensorsReader& file, const std::string& name) {
  const TensorInfo& info = file.tensors().at(name);
  const Tokens all = file.read_raw(name);
  std::vector<Tokens> lanes;
  const std::int64_t length = info.shape.back();
  for (auto at = all.begin(); at != all.end(); at += length) lanes.emplace_back(at, at + length);
  return lanes;
}

/// A model whose weights are far enough from their start for state to matter over hundreds of tokens.
inline Model moved_model(const ModelConfig& config) {
  Model model(config, 1);
  Random random(1);
  const View<float, 1> all = model.parameters().all();
  for (std::int64_t i = 0; i < all.size(); ++i) all.data[i] += static_cast<float>(0.1 * random.normal());
  return model;
}

inline Model small_model(std::int64_t d_state = 16) {
  return moved_model({.d_model = 24, .n_layer = 3, .d_state = d_state});
}

inline Tokens random_dna(std::int64_t length, std::uint64_t stream) {
  Random random(stream);
  Tokens tokens(static_cast<std::size_t>(length));
  for (std::uint8_t& token : tokens) token = static_cast<std::uint8_t>(random.integer(7, 11));
  return tokens;
}

/// Chunks of records, one record a lane, all beginning at once; with or without targets.
class LaneBatches {
 public:
  LaneBatches(const std::vector<Tokens>& records, std::int64_t chunk, const std::vector<Tokens>& targets = {})
      : records_(records), targets_(targets), chunk_(chunk) {
    for (const Tokens& record : records) longest_ = std::max(longest_, std::ssize(record));
  }
  bool next(TokenBatch& batch) {
    if (at_ > 0 && at_ >= longest_) return false;
    const std::int64_t lanes = std::ssize(records_);
    batch = {.lanes = lanes,
             .length = chunk_,
             .tokens = Tokens(lanes * chunk_, 4),
             .valid = {},
             .starts = {},
             .ends = {},
             .tag = at_};
    for (std::int64_t b = 0; b < lanes; ++b) {
      const std::int64_t length = std::ssize(records_[b]);
      const std::int64_t count = std::clamp<std::int64_t>(length - at_, 0, chunk_);
      const std::int64_t begin = std::min(at_, length);
      std::copy_n(records_[b].begin() + begin, count, batch.tokens.begin() + b * chunk_);
      if (!targets_.empty()) {
        batch.targets.resize(batch.tokens.size(), kNoTargetToken);
        std::copy_n(targets_[b].begin() + begin, count, batch.targets.begin() + b * chunk_);
      }
      batch.valid.push_back(count);
      batch.starts.push_back(at_ == 0);
      batch.ends.push_back(at_ < std::max<std::int64_t>(length, 1) && at_ + chunk_ >= length);
    }
    at_ += chunk_;
    return true;
  }

 private:
  std::vector<Tokens> records_, targets_;
  std::int64_t chunk_;
  std::int64_t longest_ = 0;
  std::int64_t at_ = 0;
};

struct RunResult {
  std::vector<std::vector<float>> values;  // [record][tokens x width] or [record][width]
  std::vector<double> log_likelihood;
  std::vector<std::int64_t> scored_bases;
};

/// Adds what a chunk yields for lane `b`, which holds record `r`.
inline void take_lane(const ChunkResult& chunk, std::size_t b, std::size_t r, std::int64_t width,
                      RunResult& result) {
  std::vector<float>& values = result.values[r];
  if (!chunk.tokens.empty()) {
    const float* row = chunk.tokens.at(b);
    values.insert(values.end(), row, row + chunk.batch.valid[b] * width);
  }
  if (!chunk.batch.ends[b]) return;
  if (!chunk.records.empty()) {
    const float* row = chunk.records.at(b);
    values.assign(row, row + width);
  }
  if (!chunk.log_likelihood.empty()) {
    result.log_likelihood[r] = chunk.log_likelihood[b];
    result.scored_bases[r] = chunk.scored_bases[b];
  }
}

/// All records side by side, one a lane.
inline RunResult run_lanes(const Model& model, const std::vector<Tokens>& records, std::int64_t chunk,
                           const ExecutionOptions& execution, const InferenceOptions& options,
                           const std::vector<Tokens>& targets = {}) {
  Inference inference(model, on_device(execution), options);
  RunResult result{.values = std::vector<std::vector<float>>(records.size()),
                   .log_likelihood = std::vector<double>(records.size()),
                   .scored_bases = std::vector<std::int64_t>(records.size())};
  LaneBatches batches(records, chunk, targets);
  inference.run([&](TokenBatch& batch) { return batches.next(batch); },
                [&](const ChunkResult& chunk_result) {
                  for (std::size_t b = 0; b < records.size(); ++b) {
                    take_lane(chunk_result, b, b, inference.width(), result);
                  }
                });
  return result;
}

inline std::function<void(std::int64_t, std::span<std::uint8_t>)> reader_of(const Tokens& tokens) {
  return [&tokens](std::int64_t begin, std::span<std::uint8_t> out) {
    std::copy_n(tokens.begin() + begin, out.size(), out.begin());
  };
}

inline TrainingSequence sequence_of(const Tokens& tokens, std::int32_t label = -1) {
  return {.length = std::ssize(tokens), .read = reader_of(tokens), .label = label};
}

inline std::vector<TrainingSequence> sequences_of(const std::vector<Tokens>& records) {
  std::vector<TrainingSequence> sequences;
  for (const Tokens& record : records) sequences.push_back(sequence_of(record));
  return sequences;
}

/// Largest difference over the largest magnitude of `expected`.
inline double relative_error(std::span<const float> got, std::span<const float> expected) {
  EXPECT_EQ(got.size(), expected.size());
  double difference = 0, magnitude = 0;
  for (std::size_t i = 0; i < expected.size() && i < got.size(); ++i) {
    if (!std::isfinite(got[i])) return INFINITY;
    difference = std::max(difference, std::abs(static_cast<double>(got[i]) - expected[i]));
    magnitude = std::max(magnitude, std::abs(static_cast<double>(expected[i])));
  }
  return difference / std::max(magnitude, 1e-30);
}

inline std::span<const float> span_of(const View<const float, 1>& view) {
  return {view.data, static_cast<std::size_t>(view.size())};
}

}  // namespace longstrand::test
