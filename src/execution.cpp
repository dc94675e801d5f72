#include "src/execution.hpp"

#include <algorithm>
#include <stdexcept>
#include <thread>

#include "kernels/check.hpp"
#include "kernels/linear.hpp"

namespace longstrand {

const char* precision_name(Precision precision) { return precision == Precision::bf16 ? "bf16" : "fp32"; }

ResolvedExecution resolve_execution(const ExecutionRequest& request) {
  if (request.device.starts_with("cuda")) {
    throw std::invalid_argument("--device " + request.device + ": this build has no CUDA; use --device cpu");
  }
  if (request.device != "auto" && request.device != "cpu") {
    throw std::invalid_argument("--device " + request.device + ": expected auto or cpu");
  }
  if (request.threads < 0) throw std::invalid_argument("--threads: expected 0 (all) or more");
  if (request.chunk_tokens < 0) throw std::invalid_argument("--chunk: expected 0 (automatic) or more");

  ResolvedExecution resolved;
  ExecutionOptions& options = resolved.options;
  options.threads = request.threads > 0 ? request.threads
                                        : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  options.chunk_tokens = request.chunk_tokens;
  const bool has_bf16 = has_bfloat16_products(options.device);
  const char* why = "";
  if (request.precision == "bf16") {
    options.precision = has_bf16 ? Precision::bf16 : Precision::fp32;
    if (!has_bf16) why = " (bf16 was asked for, but this processor has no bf16 matrix instructions)";
  } else if (request.precision == "fp32") {
    options.precision = Precision::fp32;
  } else if (request.precision == "auto") {
    options.precision = has_bf16 && !request.small_differences ? Precision::bf16 : Precision::fp32;
    if (has_bf16 && request.small_differences) why = " (the results' small differences need it)";
  } else {
    throw std::invalid_argument("--precision " + request.precision + ": expected auto, fp32 or bf16");
  }
  resolved.description =
      concat("device cpu, ", options.threads, options.threads == 1 ? " thread" : " threads", ", precision ",
             precision_name(options.precision), why);
  return resolved;
}

}  // namespace longstrand
