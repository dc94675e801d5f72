// Matrix products by cuBLASLt, with the algorithm of each kind of product looked up once.
#pragma once

#include <cublasLt.h>

#include <array>
#include <compare>
#include <cstdint>
#include <map>

#include "kernels/view.hpp"

namespace longstrand::cuda {

class Session;

/// c = op(a) op(b), or c += op(a) op(b); all row by row in memory, op transposes or does nothing. What
/// cuBLASLt chooses an algorithm by.
struct MatmulShape {
  cudaDataType_t type;    // of a and b
  cudaDataType_t type_c;  // sums are in float
  bool transpose_a;
  bool transpose_b;
  GradientMode mode;
  std::int64_t m, n, k;                // c is [m, n], op(a) [m, k], op(b) [k, n]
  std::array<std::int64_t, 3> stride;  // of the rows of a, b, c
  std::array<std::uint32_t, 3> alignment_bytes;

  auto operator<=>(const MatmulShape&) const = default;
};

/// The algorithms found so far on a device: to choose one takes about 0.1 ms, to see whether one fits another
/// shape some microseconds.
class MatmulAlgorithms {
 public:
  /// The same one for the same shape, whatever was asked before. Throws std::runtime_error where there is
  /// none.
  cublasLtMatmulAlgo_t find(const MatmulShape& shape, const Session& session);

 private:
  std::map<MatmulShape, cublasLtMatmulAlgo_t> found_;
};

/// The alignment of `pointer` as far as it matters to cuBLASLt.
std::uint32_t matmul_alignment_bytes(const void* pointer);

/// Deterministic: no algorithm that adds atomically is chosen.
void multiply(const MatmulShape& shape, const void* a, const void* b, void* c, Session& session);

}  // namespace longstrand::cuda
