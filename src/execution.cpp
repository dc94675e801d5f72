#include "src/execution.hpp"

#include <algorithm>
#include <charconv>
#include <stdexcept>
#include <string_view>
#include <thread>

#include "kernels/check.hpp"
#include "kernels/device.hpp"
#include "kernels/linear.hpp"

namespace longstrand {

const char* precision_name(Precision precision) { return precision == Precision::bf16 ? "bf16" : "fp32"; }

std::string device_name(Device device) {
  return device.kind == DeviceKind::cuda ? concat("cuda:", device.index) : "cpu";
}

namespace {

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
