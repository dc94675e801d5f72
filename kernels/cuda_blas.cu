// cuBLASLt's functions that we call, found in the library when the first of them is called. Linked in the
// usual way, the library would have to be there, and its 150 MB be read at every start, where no GPU is used
// too.
#include <cublasLt.h>
#include <dlfcn.h>

#include "kernels/check.hpp"
#include "kernels/cuda_session.cuh"

namespace longstrand::cuda {
namespace {

void* open_library() {
  const std::string name = concat("libcublasLt.so.", CUBLAS_VER_MAJOR);
  if (void* const library = dlopen(name.c_str(), RTLD_LAZY | RTLD_LOCAL)) return library;
  const std::string reason = dlerror();
  const std::string path =
      concat(LONGSTRAND_CUBLAS_FOLDER, "/", name);  // of the toolkit that this was built with
  if (void* const library = dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL)) return library;
  throw std::runtime_error(concat("cannot load cuBLAS, which products on a GPU need: ", reason,
                                  "; install it or name its folder in LD_LIBRARY_PATH"));
}

void* library() {
  static void* const handle = open_library();  // for the rest of the process
  return handle;
}

template <class Function>
Function* find(const char* name) {
  if (void* const symbol = dlsym(library(), name)) return reinterpret_cast<Function*>(symbol);
  throw std::runtime_error(concat("cuBLAS has no ", name));
}

}  // namespace

std::string blas_fault() {
  try {
    library();
    return {};
  } catch (const std::runtime_error& error) {
    return error.what();
  }
}

}  // namespace longstrand::cuda

// clang-format off
#define LONGSTRAND_FORWARD(result, name, parameters, arguments)                      \
  extern "C" result name parameters {                                                \
    static auto* const function = longstrand::cuda::find<result parameters>(#name);  \
    return function arguments;                                                       \
  }
LONGSTRAND_FORWARD(const char*, cublasLtGetStatusString, (cublasStatus_t status), (status))
LONGSTRAND_FORWARD(cublasStatus_t, cublasLtCreate, (cublasLtHandle_t* handle), (handle))
LONGSTRAND_FORWARD(cublasStatus_t, cublasLtDestroy, (cublasLtHandle_t handle), (handle))
LONGSTRAND_FORWARD(cublasStatus_t, cublasLtMatmulDescInit_internal,
                   (cublasLtMatmulDesc_t product, size_t size, cublasComputeType_t compute, cudaDataType_t scale),
                   (product, size, compute, scale))
LONGSTRAND_FORWARD(cublasStatus_t, cublasLtMatmulDescSetAttribute,
                   (cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t which, const void* value, size_t size),
                   (product, which, value, size))
LONGSTRAND_FORWARD(cublasStatus_t, cublasLtMatrixLayoutInit_internal,
                   (cublasLtMatrixLayout_t layout, size_t size, cudaDataType type, uint64_t rows, uint64_t columns,
                    int64_t stride),
                   (layout, size, type, rows, columns, stride))
LONGSTRAND_FORWARD(cublasStatus_t, cublasLtMatmulPreferenceInit_internal,
                   (cublasLtMatmulPreference_t preference, size_t size), (preference, size))
LONGSTRAND_FORWARD(cublasStatus_t, cublasLtMatmulPreferenceSetAttribute,
                   (cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t which,
                    const void* value, size_t size),
                   (preference, which, value, size))
LONGSTRAND_FORWARD(cublasStatus_t, cublasLtMatmulAlgoGetHeuristic,
                   (cublasLtHandle_t handle, cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t a,
                    cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                    cublasLtMatmulPreference_t preference, int wanted, cublasLtMatmulHeuristicResult_t results[],
                    int* found),
                   (handle, product, a, b, c, d, preference, wanted, results, found))
LONGSTRAND_FORWARD(cublasStatus_t, cublasLtMatmulAlgoCheck,
                   (cublasLtHandle_t handle, cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t a,
                    cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                    const cublasLtMatmulAlgo_t* algorithm, cublasLtMatmulHeuristicResult_t* result),
                   (handle, product, a, b, c, d, algorithm, result))
LONGSTRAND_FORWARD(cublasStatus_t, cublasLtMatmulAlgoConfigGetAttribute,
                   (const cublasLtMatmulAlgo_t* algorithm, cublasLtMatmulAlgoConfigAttributes_t which, void* value,
                    size_t size, size_t* written),
                   (algorithm, which, value, size, written))
LONGSTRAND_FORWARD(cublasStatus_t, cublasLtMatmul,
                   (cublasLtHandle_t handle, cublasLtMatmulDesc_t product, const void* alpha, const void* a,
                    cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout, const void* beta,
                    const void* c, cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t d_layout,
                    const cublasLtMatmulAlgo_t* algorithm, void* workspace, size_t workspace_size,
                    cudaStream_t stream),
                   (handle, product, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout, algorithm,
                    workspace, workspace_size, stream))
#undef LONGSTRAND_FORWARD
// clang-format on
