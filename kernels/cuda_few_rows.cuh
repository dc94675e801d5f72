// Products with a few rows, those of a decoding step. Reading the weight is all there is to them: a warp
// takes an output, where cuBLASLt's tiles would occupy a few multiprocessors only.
#pragma once

#include "kernels/cuda_session.cuh"

namespace longstrand::cuda {

inline constexpr std::int64_t kFewRows = 4;

/// y [M, n] = x [M, k] weight^T, with weight [n, k] and M from 1 to kFewRows; where there is a bias [n],
/// softplus(x weight^T + bias).
template <class T, class Out>
void multiply_few_rows(View<const T, 2> x, View<const T, 2> weight, View<const float, 1> softplus_bias,
                       View<Out, 2> y, Context& context);

}  // namespace longstrand::cuda
