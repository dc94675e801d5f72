// Where and how a model runs.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "kernels/view.hpp"

namespace longstrand {

enum class Precision : std::uint8_t { fp32, bf16 };

/// A Made<T> from the arguments of its constructor, T being the type of activations in that precision.
template <template <class> class Made, class Base, class... Arguments>
std::unique_ptr<Base> make_for(Precision precision, Arguments&&... arguments) {
  if (precision == Precision::bf16) {
    return std::make_unique<Made<bfloat16>>(std::forward<Arguments>(arguments)...);
  }
  return std::make_unique<Made<float>>(std::forward<Arguments>(arguments)...);
}

/// "fp32" or "bf16", as --precision takes it.
const char* precision_name(Precision precision);

/// "cpu" or "cuda:K", as --device takes it.
std::string device_name(Device device);

/// Called now and then in work that asks for no tokens for long, with how many of the tokens that it has are
/// done: half of a record's when half of what there is to do with it is done. From any thread, one call at a
/// time; what it throws ends the work.
using Poll = std::function<void(std::int64_t tokens)>;

struct ExecutionOptions {
  Device device{};
  Precision precision = Precision::fp32;  // of activations and of weights in products
  int threads = 1;                        // of a CPU
  std::int64_t chunk_tokens = 0;          // 0: what is fast on the device
  std::int64_t lanes = 0;  // at most so many sequences side by side; 0: what is fast on the device
  /// Causal training takes sequences of no more tokens layer by layer (src/chunk_major_trainer.cpp), on a CPU
  /// by one thread; less than 0: what the device has room for, unless chunk_tokens says how much at a time.
  std::int64_t by_layers_tokens = -1;
  std::function<void(const std::string&)> notify = {};  // takes what the user should know, a line at a time
};

/// A chunk on a CPU, but where causal training keeps its activations: long enough for the products to run at
/// full speed, short enough for a layer's activations to stay in cache (measured from 32 to 256 on Zen 4 and
/// Sapphire Rapids, d_model 256, fp32 and bf16: 128 is the fastest, 64 is 5 to 10 % behind; bidirectional
/// models from 64 to 1024, and their training: as fast as any).
inline constexpr std::int64_t kCpuChunk_tokens = 128;
/// How many tokens a chunk should have, over all lanes, where a layer would keep so many bytes of each for
/// backward: as many as asked for, or what is fast on the device.
std::int64_t chunk_tokens_for(const ExecutionOptions& execution, std::int64_t bytes_per_token);
/// How many lanes there should be at most, likewise.
std::int64_t lanes_for(const ExecutionOptions& execution);

struct ExecutionRequest {
  std::string device = "auto";     // auto, cpu, cuda, cuda:K
  std::string precision = "auto";  // auto, fp32, bf16
  int threads = 0;                 // 0: all
  std::int64_t chunk_tokens = 0;   // 0: automatic
  bool small_differences = false;  // score, variants: auto means fp32
};

struct ResolvedExecution {
  ExecutionOptions options;
  std::string description;  // one line for the log: device, precision and why
};

/// "auto" is the first GPU if it can be used, else the CPU. Throws std::invalid_argument that names the
/// option for an unknown value, std::runtime_error with the reason for a GPU that cannot be used.
ResolvedExecution resolve_execution(const ExecutionRequest& request);

}  // namespace longstrand
