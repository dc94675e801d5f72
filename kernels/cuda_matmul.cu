// cuBLASLt reads columns one after the other. A matrix stored row by row is its transpose to cuBLASLt, so
// that c = op(a) op(b) is asked for as c^T = op(b)^T op(a)^T: b goes first, and both keep their flags.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <utility>

#include "kernels/cuda_matmul.cuh"
#include "kernels/cuda_session.cuh"

namespace longstrand::cuda {
namespace {

/// The descriptors of one product; they hold no memory of their own.
class Problem {
 public:
  explicit Problem(const MatmulShape& s) {
    check(cublasLtMatmulDescInit(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describe a product");
    transpose(CUBLASLT_MATMUL_DESC_TRANSA, s.transpose_b);
    transpose(CUBLASLT_MATMUL_DESC_TRANSB, s.transpose_a);
    describe(first, s.type, s.transpose_b ? s.n : s.k, s.transpose_b ? s.k : s.n, s.stride[1]);
    describe(second, s.type, s.transpose_a ? s.k : s.m, s.transpose_a ? s.m : s.k, s.stride[0]);
    describe(result, s.type_c, s.m, s.n, s.stride[2]);
  }

  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t first, second, result;

 private:
  void transpose(cublasLtMatmulDescAttributes_t which, bool value) {
    const cublasOperation_t flag = value ? CUBLAS_OP_T : CUBLAS_OP_N;
    check(cublasLtMatmulDescSetAttribute(&operation, which, &flag, sizeof flag), "describe a product");
  }
  static void describe(cublasLtMatrixLayoutOpaque_t& layout, cudaDataType_t type, std::int64_t rows,
                       std::int64_t columns, std::int64_t row_stride) {
    check(cublasLtMatrixLayoutInit(&layout, type, columns, rows, std::max(row_stride, columns)),
          "describe a matrix");
  }
};

cublasLtMatmulPreferenceOpaque_t preference(const MatmulShape& shape, const Session& session) {
  cublasLtMatmulPreferenceOpaque_t result;
  check(cublasLtMatmulPreferenceInit(&result), "describe the choice");
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t which, auto value) {
    check(cublasLtMatmulPreferenceSetAttribute(&result, which, &value, sizeof value), "describe the choice");
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{session.blas_workspace_bytes});
  // A sum split over blocks is added up in float and in a fixed order, in a step of its own.
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      std::uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, shape.alignment_bytes[1]);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, shape.alignment_bytes[0]);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, shape.alignment_bytes[2]);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, shape.alignment_bytes[2]);
  return result;
}

bool splits_sums(const cublasLtMatmulHeuristicResult_t& result) {
  std::int32_t parts = 0;
  std::size_t written = 0;
  check(cublasLtMatmulAlgoConfigGetAttribute(&result.algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts,
                                             sizeof parts, &written),
        "read an algorithm");
  return parts > 1;
}

/// The share of the multiprocessors that are busy, all rounds of blocks taken together.
float busy_share(const cublasLtMatmulHeuristicResult_t& result) {
  return result.wavesCount / std::max(1.0F, std::ceil(result.wavesCount));
}

constexpr float kBusy = 0.85F;

/// cuBLASLt's own choice, but for a sum that it would split although the GPU is all but busy without that:
/// then the step that adds up the parts costs more than it gains.
cublasLtMatmulAlgo_t choose(const MatmulShape& shape, const Session& session) {
  Problem problem(shape);
  cublasLtMatmulPreferenceOpaque_t wishes = preference(shape, session);
  constexpr int kMost = 8;
  std::array<cublasLtMatmulHeuristicResult_t, kMost> results{};  // the best one first
  int found = 0;
  check(cublasLtMatmulAlgoGetHeuristic(session.blas, &problem.operation, &problem.first, &problem.second,
                                       &problem.result, &problem.result, &wishes, kMost, results.data(),
                                       &found),
        "choose an algorithm");
  check(found == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : results[0].state, "choose an algorithm");
  if (!splits_sums(results[0])) return results[0].algo;
  const auto whole = std::find_if(results.begin(), results.begin() + found, [](const auto& result) {
    return result.state == CUBLAS_STATUS_SUCCESS && !splits_sums(result) && busy_share(result) >= kBusy;
  });
  return whole == results.begin() + found ? results[0].algo : whole->algo;
}

/// Whether an algorithm chosen for another number of tokens can be used.
bool fits(const cublasLtMatmulAlgo_t& algorithm, const MatmulShape& shape, const Session& session) {
  Problem problem(shape);
  cublasLtMatmulHeuristicResult_t result{};
  const cublasStatus_t status =
      cublasLtMatmulAlgoCheck(session.blas, &problem.operation, &problem.first, &problem.second,
                              &problem.result, &problem.result, &algorithm, &result);
  return status == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= session.blas_workspace_bytes;
}

/// With the number of tokens rounded up to one of four values per power of two: records have any length, and
/// neighbouring lengths share an algorithm.
MatmulShape rounded_up(const MatmulShape& shape) {
  MatmulShape result = shape;
  std::int64_t& tokens = shape.transpose_a ? result.k : result.m;
  const auto step = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(tokens)) / 4);
  if (step > 1) tokens = ceil_div(tokens, step) * step;
  return result;
}

}  // namespace

cublasLtMatmulAlgo_t MatmulAlgorithms::find(const MatmulShape& shape, const Session& session) {
  const auto found = found_.find(shape);
  if (found != found_.end()) return found->second;
  const MatmulShape of_class = rounded_up(shape);
  const bool heads_class = of_class == shape;
  cublasLtMatmulAlgo_t algorithm = heads_class ? choose(shape, session) : find(of_class, session);
  if (!heads_class && !fits(algorithm, shape, session)) algorithm = choose(shape, session);
  constexpr std::size_t kMost = 16384;  // 3 MiB; a model needs some ten per number of tokens
  if (found_.size() >= kMost) found_.clear();
  found_.emplace(shape, algorithm);
  return algorithm;
}

std::uint32_t matmul_alignment_bytes(const void* pointer) {
  constexpr std::uint32_t kMost_bytes =
      16;  // the widest access, and what the tensor memory accelerator wants
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  return std::uint32_t{1} << std::countr_zero(address | kMost_bytes);
}

void multiply(const MatmulShape& shape, const void* a, const void* b, void* c, Session& session) {
  Problem problem(shape);
  const cublasLtMatmulAlgo_t algorithm = session.matmul_algorithms.find(shape, session);
  const float alpha = 1.0F;
  const float beta = shape.mode == GradientMode::accumulate ? 1.0F : 0.0F;
  check(cublasLtMatmul(session.blas, &problem.operation, &alpha, b, &problem.first, a, &problem.second, &beta,
                       c, &problem.result, c, &problem.result, &algorithm, session.blas_workspace,
                       session.blas_workspace_bytes, session.stream),
        "matrix product");
}

}  // namespace longstrand::cuda
