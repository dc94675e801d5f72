#include <algorithm>
#include <bit>

#include "kernels/cuda_few_rows.cuh"
#include "kernels/cuda_session.cuh"
#include "kernels/linear_cuda.hpp"

namespace longstrand::cuda {
namespace {

template <class T>
constexpr cudaDataType_t kBlasType = std::is_same_v<T, float> ? CUDA_R_32F : CUDA_R_16BF;

template <class T>
__global__ void pack_kernel(const float* weight, std::int64_t weight_stride, T* packed,
                            std::int64_t packed_stride, std::int64_t in) {
  const std::int64_t row = blockIdx.x;
  for (std::int64_t i = threadIdx.x; i < in; i += blockDim.x) {
    packed[row * packed_stride + i] = from_float<T>(weight[row * weight_stride + i]);
  }
}

/// The most rows of operands with these strides that one product is asked for: cuBLASLt's kernels count some
/// things in 32 bits.
std::int64_t rows_at_once(std::int64_t stride_a, std::int64_t stride_b) {
  constexpr std::uint64_t kMostRows = std::uint64_t{1} << 22;
  constexpr std::uint64_t kMostElements = std::uint64_t{1} << 31;
  const auto stride = static_cast<std::uint64_t>(std::max({stride_a, stride_b, std::int64_t{1}}));
  return static_cast<std::int64_t>(
      std::bit_floor(std::clamp<std::uint64_t>(kMostElements / stride, 1, kMostRows)));
}

/// y [M, n] = x [M, k] op(weight), or with it added to y.
template <class T, class Out>
void multiply_rows(View<const T, 2> x, View<const T, 2> weight, bool transpose_weight, View<Out, 2> y,
                   GradientMode mode, Context& context) {
  Session& session = session_of(context);
  const std::int64_t most = rows_at_once(x.stride[0], y.stride[0]);
  for (std::int64_t row = 0; row < x.shape[0]; row += most) {
    const MatmulShape shape{
        .type = kBlasType<T>,
        .type_c = kBlasType<Out>,
        .transpose_a = false,
        .transpose_b = transpose_weight,
        .mode = mode,
        .m = std::min(most, x.shape[0] - row),
        .n = y.shape[1],
        .k = x.shape[1],
        .stride = {x.stride[0], weight.stride[0], y.stride[0]},
        .alignment_bytes = {matmul_alignment_bytes(x.at(row)), matmul_alignment_bytes(weight.data),
                            matmul_alignment_bytes(y.at(row))}};
    multiply(shape, x.at(row), weight.data, y.at(row), session);
  }
}

}  // namespace

template <class T>
void DeviceWeight<T>::pack(View<const float, 2> weight, Context& context) {
  constexpr std::int64_t kGranule = 16 / sizeof(T);
  constexpr int kThreads = 256;
  const auto [out, in] = weight.shape;
  const std::array<std::int64_t, 2> shape{out, ceil_div(in, kGranule) * kGranule};
  if (storage_.view().shape != shape || storage_.view().device != context.device) {
    storage_ = Array<T, 2>(shape, context.device);
  }
  in_ = in;
  pack_kernel<<<static_cast<unsigned>(out), kThreads, 0, stream_of(context)>>>(
      weight.data, weight.stride[0], storage_.view().data, shape[1], in);
  check_launch("pack a weight");
  session_of(context).weight_under_way = true;
}

template <class T, class Out>
void linear_forward(View<const T, 2> x, View<const T, 2> weight, View<Out, 2> y, Context& context) {
  if (x.shape[0] <= kFewRows) return multiply_few_rows(x, weight, {}, y, context);
  multiply_rows(x, weight, true, y, GradientMode::overwrite, context);  // y = x W^T
}

template <class T>
void linear_backward_input(View<const T, 2> d_y, View<const T, 2> weight, View<T, 2> d_x, GradientMode mode,
                           Context& context) {
  multiply_rows(d_y, weight, false, d_x, mode, context);  // d_x = d_y W
}

template <class T>
void linear_backward_weight(View<const T, 2> d_y, View<const T, 2> x, View<float, 2> d_weight,
                            Context& context) {
  Session& session = session_of(context);
  const std::int64_t most = rows_at_once(d_y.stride[0], x.stride[0]);
  for (std::int64_t row = 0; row < x.shape[0]; row += most) {
    const MatmulShape shape{
        .type = kBlasType<T>,
        .type_c = CUDA_R_32F,
        .transpose_a = true,
        .transpose_b = false,
        .mode = GradientMode::accumulate,
        .m = d_y.shape[1],
        .n = x.shape[1],
        .k = std::min(most, x.shape[0] - row),
        .stride = {d_y.stride[0], x.stride[0], d_weight.stride[0]},
        .alignment_bytes = {matmul_alignment_bytes(d_y.at(row)), matmul_alignment_bytes(x.at(row)),
                            matmul_alignment_bytes(d_weight.data)}};
    multiply(shape, d_y.at(row), x.at(row), d_weight.data, session);  // d_W += d_y^T x
  }
}

bool has_bfloat16_products(Device device) {
  int major = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.index),
        "read the device's properties");
  return major >= 8;
}

template class DeviceWeight<float>;
template class DeviceWeight<bfloat16>;

template void linear_forward(View<const float, 2>, View<const float, 2>, View<float, 2>, Context&);
template void linear_forward(View<const bfloat16, 2>, View<const bfloat16, 2>, View<bfloat16, 2>, Context&);
template void linear_forward(View<const bfloat16, 2>, View<const bfloat16, 2>, View<float, 2>, Context&);

template void linear_backward_input(View<const float, 2>, View<const float, 2>, View<float, 2>, GradientMode,
                                    Context&);
template void linear_backward_input(View<const bfloat16, 2>, View<const bfloat16, 2>, View<bfloat16, 2>,
                                    GradientMode, Context&);

template void linear_backward_weight(View<const float, 2>, View<const float, 2>, View<float, 2>, Context&);
template void linear_backward_weight(View<const bfloat16, 2>, View<const bfloat16, 2>, View<float, 2>,
                                     Context&);

}  // namespace longstrand::cuda
