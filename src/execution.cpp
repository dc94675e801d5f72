#include "src/execution.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <stdexcept>
#include <string_view>
#include <thread>

#include "kernels/check.hpp"
#include "kernels/device.hpp"
#include "kernels/linear.hpp"
#include "kernels/memory.hpp"

namespace longstrand {

const char* precision_name(Precision precision) { return precision == Precision::bf16 ? "bf16" : "fp32"; }

std::string device_name(Device device) {
  return device.kind == DeviceKind::cuda ? concat("cuda:", device.index) : "cpu";
}

namespace {

/// On a GPU: what a layer would keep of a chunk for backward, rounded down to a power of two in tokens, and
/// no more than an eighth of the memory. 2^20 tokens of d_model 256 in bfloat16, in 6.6 GiB: the scan's
/// segments are long then.
constexpr std::int64_t kGpuActivations_bytes = std::int64_t{12} << 30;
/// Reads of 100 bases fill a quarter of a chunk then, and the state of all lanes stays below a chunk's
/// activations.
constexpr std::int64_t kGpuLanes = 512;

struct ChosenDevice {
  Device device;
  std::string description;
};

/// "cuda" or "cuda:K".
int parse_cuda_index(const std::string& name) {
  if (name == "cuda") return 0;
  constexpr std::string_view kPrefix = "cuda:";
  int index = -1;
  if (name.starts_with(kPrefix)) {
    const char* end = name.data() + name.size();
    const auto [rest, error] = std::from_chars(name.data() + kPrefix.size(), end, index);
    if (error != std::errc() || rest != end) index = -1;
  }
  if (index < 0) throw std::invalid_argument("--device " + name + ": expected auto, cpu, cuda or cuda:K");
  return index;
}

ChosenDevice choose_device(const std::string& name, int threads) {
  const std::string on_threads = concat(threads, threads == 1 ? " thread" : " threads");
  if (name == "cpu") return {.device = {}, .description = "device cpu, " + on_threads};
  const int index = name == "auto" ? 0 : parse_cuda_index(name);
  const CudaProbe probe = probe_cuda(index);
  if (probe.state == CudaState::usable) {
    return {.device = {DeviceKind::cuda, index},
            .description = concat("device cuda:", index, " (", probe.description, ")")};
  }
  if (name == "auto") {
    return {.device = {}, .description = concat("device cpu (", probe.description, "), ", on_threads)};
  }
  throw std::runtime_error(concat("--device ", name, ": ", probe.description, "; use --device cpu"));
}

struct ChosenPrecision {
  Precision precision;
  const char* why;
};

ChosenPrecision choose_precision(const ExecutionRequest& request, Device device) {
  const bool has_bf16 = has_bfloat16_products(device);
  if (request.precision == "fp32") return {Precision::fp32, ""};
  if (request.precision == "bf16") {
    if (has_bf16) return {Precision::bf16, ""};
    return {Precision::fp32, " (bf16 was asked for, but this device has no matrix instructions for it)"};
  }
  if (request.precision != "auto") {
    throw std::invalid_argument("--precision " + request.precision + ": expected auto, fp32 or bf16");
  }
  if (!has_bf16) return {Precision::fp32, ""};
  if (request.small_differences) return {Precision::fp32, " (the results' small differences need it)"};
  return {Precision::bf16, ""};
}

}  // namespace

std::int64_t chunk_tokens_for(const ExecutionOptions& execution, std::int64_t bytes_per_token) {
  if (execution.chunk_tokens > 0) return execution.chunk_tokens;
  if (execution.device.kind == DeviceKind::cpu) return kCpuChunk_tokens;
  const std::int64_t size_bytes = std::min(kGpuActivations_bytes, device_memory_bytes(execution.device) / 8);
  return static_cast<std::int64_t>(
      std::bit_floor(static_cast<std::uint64_t>(std::max<std::int64_t>(size_bytes / bytes_per_token, 1))));
}

std::int64_t lanes_for(const ExecutionOptions& execution) {
  if (execution.lanes > 0) return execution.lanes;
  return execution.device.kind == DeviceKind::cuda ? kGpuLanes : 1;
}

ResolvedExecution resolve_execution(const ExecutionRequest& request) {
  if (request.threads < 0) throw std::invalid_argument("--threads: expected 0 (all) or more");
  if (request.chunk_tokens < 0) throw std::invalid_argument("--chunk: expected 0 (automatic) or more");
  const int threads = request.threads > 0
                          ? request.threads
                          : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const ChosenDevice device = choose_device(request.device, threads);
  const auto [precision, why] = choose_precision(request, device.device);
  return {.options = {.device = device.device,
                      .precision = precision,
                      .threads = threads,
                      .chunk_tokens = request.chunk_tokens},
          .description = concat(device.description, ", precision ", precision_name(precision), why)};
}

}  // namespace longstrand
