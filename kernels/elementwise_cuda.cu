#include <algorithm>
#include <type_traits>

#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_packet.cuh"
#include "kernels/elementwise_cuda.hpp"

namespace longstrand::cuda {
namespace {

constexpr int kThreads = 256;

/// Enough blocks to fill the GPU; every thread goes on by the whole grid.
unsigned blocks_for(std::int64_t count, const Session& session) {
  const std::int64_t most = std::int64_t{session.multiprocessors} * 16;
  return static_cast<unsigned>(std::clamp<std::int64_t>(ceil_div(count, kThreads), 1, most));
}

__device__ std::int64_t first_index() { return std::int64_t{blockIdx.x} * kThreads + threadIdx.x; }
__device__ std::int64_t index_step() { return std::int64_t{gridDim.x} * kThreads; }

__device__ float as_float(bfloat16 value) { return to_float(value); }
__device__ float as_float(double value) { return static_cast<float>(value); }
__device__ float as_float(float value) { return value; }

template <class From, class To>
__global__ void convert_kernel(const From* from, std::int64_t from_stride, To* to, std::int64_t to_stride,
                               std::int64_t count, std::int64_t columns) {
  for (std::int64_t i = first_index(); i < count; i += index_step()) {
    const std::int64_t row = i / columns, column = i % columns;
    const float value[1] = {as_float(from[row * from_stride + column])};
    store(value, to + row * to_stride + column);
  }
}

/// A View<T, 2> for device code, taken as packets of V elements that are numbered row by row.
template <class T, int V>
struct Packets {
  T* data;
  std::int64_t stride, of_row;

  explicit Packets(const View<T, 2>& view)
      : data(view.data), stride(view.stride[0]), of_row(view.shape[1] / V) {}
  __device__ T* at(std::int64_t i) const { return data + i / of_row * stride + i % of_row * V; }
};

struct Sum {
  __device__ static float of(float a, float b) { return a + b; }
};
struct Product {
  __device__ static float of(float a, float b) { return a * b; }
};

/// to = Operation::of(to, from)
template <class Operation, int V, class From, class To>
__global__ void combine_kernel(Packets<const From, V> from, Packets<To, V> to, std::int64_t count) {
  for (std::int64_t i = first_index(); i < count; i += index_step()) {
    float a[V], b[V];
    load(to.at(i), a);
    load(from.at(i), b);
#pragma unroll
    for (int k = 0; k < V; ++k) a[k] = Operation::of(a[k], b[k]);
    store(a, to.at(i));
  }
}

template <int V, class T>
__global__ void multiply_backward_kernel(Packets<const T, V> a, Packets<const T, V> b,
                                         Packets<const T, V> d_product, Packets<T, V> d_a, Packets<T, V> d_b,
                                         std::int64_t count) {
  for (std::int64_t i = first_index(); i < count; i += index_step()) {
    float slope[V], of_a[V], of_b[V];
    load(d_product.at(i), slope);
    load(a.at(i), of_b);
    load(b.at(i), of_a);
#pragma unroll
    for (int k = 0; k < V; ++k) of_a[k] *= slope[k], of_b[k] *= slope[k];
    store(of_a, d_a.at(i));
    store(of_b, d_b.at(i));
  }
}

template <class T>
__global__ void fill_kernel(T* to, std::int64_t count, std::int64_t row_size, std::int64_t row_stride,
                            T value) {
  wait_for_turn();
  for (std::int64_t i = first_index(); i < count; i += index_step()) {
    to[i / row_size * row_stride + i % row_size] = value;
  }
}

constexpr std::size_t kMostViews = 32;  // of a launch

/// Of one shape.
template <class T>
struct Views {
  T* data[kMostViews];
  std::int64_t stride[kMostViews];
};

template <class T>
__global__ void fill_marked_rows_kernel(const __grid_constant__ Views<T> to, const std::uint8_t* marked,
                                        std::int64_t count, std::int64_t columns, T value) {
  wait_for_turn();
  T* const view = to.data[blockIdx.y];
  const std::int64_t stride = to.stride[blockIdx.y];
  for (std::int64_t i = first_index(); i < count; i += index_step()) {
    const std::int64_t row = i / columns;
    if (marked[row] != 0) view[row * stride + i % columns] = value;
  }
}

template <class T>
bool hold_packets(const View<T, 2>& view) {
  return view.shape[1] % kPacket == 0 && rows_hold_packets(view);
}

/// Calls `launch` with the elements of a packet as a constant.
template <class Launch>
void with_packets(bool whole, const Launch& launch) {
  if (whole) {
    launch(std::integral_constant<int, kPacket>());
  } else {
    launch(std::integral_constant<int, 1>());
  }
}

template <class Operation, class From, class To>
void combine(View<const From, 2> from, View<To, 2> to, const char* what, Context& context) {
  if (to.size() == 0) return;
  with_packets(hold_packets(from) && hold_packets(to), [&]<int V>(std::integral_constant<int, V>) {
    Session& session = session_of(context);
    const std::int64_t count = to.size() / V;
    combine_kernel<Operation, V, From, To><<<blocks_for(count, session), kThreads, 0, session.stream>>>(
        Packets<const From, V>(from), Packets<To, V>(to), count);
    check_launch(what);
  });
}

}  // namespace

template <class From, class To>
void convert(View<const From, 2> from, View<To, 2> to, Context& context) {
  if (from.size() == 0) return;
  Session& session = session_of(context);
  convert_kernel<<<blocks_for(from.size(), session), kThreads, 0, session.stream>>>(
      from.data, from.stride[0], to.data, to.stride[0], from.size(), from.shape[1]);
  check_launch("convert");
}

template <class From, class To>
void add(View<const From, 2> from, View<To, 2> to, Context& context) {
  combine<Sum>(from, to, "add", context);
}

template <class T>
void multiply(View<const T, 2> from, View<T, 2> to, Context& context) {
  combine<Product>(from, to, "multiply", context);
}

template <class T>
void multiply_backward(View<const T, 2> a, View<const T, 2> b, View<const T, 2> d_product, View<T, 2> d_a,
                       View<T, 2> d_b, Context& context) {
  if (a.size() == 0) return;
  const bool whole =
      hold_packets(a) && hold_packets(b) && hold_packets(d_product) && hold_packets(d_a) && hold_packets(d_b);
  with_packets(whole, [&]<int V>(std::integral_constant<int, V>) {
    Session& session = session_of(context);
    const std::int64_t count = a.size() / V;
    multiply_backward_kernel<V, T><<<blocks_for(count, session), kThreads, 0, session.stream>>>(
        Packets<const T, V>(a), Packets<const T, V>(b), Packets<const T, V>(d_product), Packets<T, V>(d_a),
        Packets<T, V>(d_b), count);
    check_launch("gradient of multiply");
  });
}

template <class T>
void fill_runs(T* to, std::int64_t rows, std::int64_t row_size, std::int64_t row_stride, T value,
               Context& context) {
  Session& session = session_of(context);
  const std::int64_t count = rows * row_size;
  launch_early(fill_kernel<T>, blocks_for(count, session), kThreads, 0, session, "fill", to, count, row_size,
               row_stride, value);
}

template <class T>
void fill_marked_rows(std::span<const View<T, 2>> to, View<const std::uint8_t, 1> marked, T value,
                      Context& context) {
  if (to.empty() || to.front().size() == 0) return;
  Session& session = session_of(context);
  const std::int64_t count = to.front().size(), columns = to.front().shape[1];
  for (std::size_t first = 0; first < to.size(); first += kMostViews) {
    const auto some = to.subspan(first, std::min(kMostViews, to.size() - first));
    Views<T> views{};
    for (std::size_t i = 0; i < some.size(); ++i) {
      views.data[i] = some[i].data, views.stride[i] = some[i].stride[0];
    }
    launch_early(fill_marked_rows_kernel<T>,
                 dim3(blocks_for(count, session), static_cast<unsigned>(some.size())), kThreads, 0, session,
                 "fill marked rows", views, marked.data, count, columns, value);
  }
}

template void convert(View<const bfloat16, 2>, View<float, 2>, Context&);
template void convert(View<const double, 2>, View<float, 2>, Context&);
template void convert(View<const float, 2>, View<float, 2>, Context&);
template void convert(View<const float, 2>, View<bfloat16, 2>, Context&);
template void add(View<const float, 2>, View<float, 2>, Context&);
template void add(View<const bfloat16, 2>, View<bfloat16, 2>, Context&);
template void add(View<const bfloat16, 2>, View<float, 2>, Context&);
template void multiply(View<const float, 2>, View<float, 2>, Context&);
template void multiply(View<const bfloat16, 2>, View<bfloat16, 2>, Context&);
template void multiply_backward(View<const float, 2>, View<const float, 2>, View<const float, 2>,
                                View<float, 2>, View<float, 2>, Context&);
template void multiply_backward(View<const bfloat16, 2>, View<const bfloat16, 2>, View<const bfloat16, 2>,
                                View<bfloat16, 2>, View<bfloat16, 2>, Context&);
template void fill_runs(float*, std::int64_t, std::int64_t, std::int64_t, float, Context&);
template void fill_runs(double*, std::int64_t, std::int64_t, std::int64_t, double, Context&);
template void fill_runs(std::int32_t*, std::int64_t, std::int64_t, std::int64_t, std::int32_t, Context&);
template void fill_runs(std::int64_t*, std::int64_t, std::int64_t, std::int64_t, std::int64_t, Context&);
template void fill_marked_rows(std::span<const View<float, 2>>, View<const std::uint8_t, 1>, float, Context&);
template void fill_marked_rows(std::span<const View<double, 2>>, View<const std::uint8_t, 1>, double,
                               Context&);

}  // namespace longstrand::cuda
