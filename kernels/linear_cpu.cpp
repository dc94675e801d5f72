// oneDNN's matmul primitive, asked in three ways. What was measured (2.6.3, Zen 4, one thread; in x out =
// 256 x 1024, 512 x 48, 16 x 512, 512 x 256):
//
// - Packed weights win 5 to 10 % over plain ones, and a number of rows known at compile time of the primitive
//   wins 5 to 60 % over a run-time one. The packed order does not depend on the number of rows.
// - A primitive takes 0.1 to 0.3 ms and 36 KiB to make, so the rows of a call are cut into pieces of few
//   different sizes (piece_rows) and the primitives are kept.
// - For the weight's gradient, the matmul that reads its first operand transposed is as fast as a transposing
//   copy followed by the plain matmul, or faster, and faster than inner_product's backward, which cannot add.
// - Without matrix instructions for bfloat16, oneDNN makes 35 GFLOP/s of them against 115 in float (and below
//   AVX-512 it has no such product at all): the operands are then converted to float.
#include "kernels/linear_cpu.hpp"

#include <omp.h>

#include <array>
#include <compare>
#include <dnnl.hpp>
#include <map>
#include <mutex>

namespace longstrand::cpu {
namespace {

using dnnl::memory;
using DataType = memory::data_type;

/// oneDNN asks OpenMP how many threads to use. The setting belongs to the calling thread.
class OneThread {
 public:
  OneThread() : threads_before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(threads_before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int threads_before_;
};

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

const dnnl::stream& stream() {
  thread_local const dnnl::stream of_this_thread(engine());
  return of_this_thread;
}

/// The type in which the products of T are computed.
template <class T>
DataType product_type() {
  return std::is_same_v<T, bfloat16> && has_bfloat16_products() ? DataType::bf16 : DataType::f32;
}

memory::desc strided(std::int64_t rows, std::int64_t columns, DataType type, std::int64_t row_stride,
                     std::int64_t column_stride = 1) {
  return {memory::dims{rows, columns}, type, memory::dims{row_stride, column_stride}};
}

dnnl::primitive_attr attributes(GradientMode mode) {
  dnnl::primitive_attr result;
  result.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  result.set_fpmath_mode(dnnl::fpmath_mode::strict);
  if (mode == GradientMode::accumulate) {
    dnnl::post_ops add;
    add.append_sum(1.0F);
    result.set_post_ops(add);
  }
  return result;
}

dnnl::matmul::primitive_desc describe(const memory::desc& x, const memory::desc& weight,
                                      const memory::desc& y, GradientMode mode) {
#if DNNL_VERSION_MAJOR >= 3
  return {engine(), x, weight, y, attributes(mode)};
#else
  return {dnnl::matmul::desc(x, weight, y), attributes(mode), engine()};
#endif
}

/// The order in which oneDNN wants the weight [k, n].
memory::desc packed_order(std::int64_t k, std::int64_t n, DataType type) {
  constexpr std::int64_t kAnyRows = 64;
  const memory::desc any({k, n}, type, memory::format_tag::any);
  const memory::desc chosen =
      describe(strided(kAnyRows, k, type, k), any, strided(kAnyRows, n, type, n), GradientMode::overwrite)
          .weights_desc();
  // Where it does not block, below AVX-512, columns one after the other are up to twice as fast as rows.
  return chosen == strided(k, n, type, n) ? strided(k, n, type, 1, k) : chosen;
}

/// All that a primitive is compiled for. The weight is packed where its stride is kPacked.
struct Shape {
  static constexpr std::int64_t kPacked = 0;

  DataType type;
  DataType type_y;
  GradientMode mode;
  std::int64_t m, k, n;
  std::array<std::int64_t, 2> stride_x;
  std::int64_t stride_weight;
  std::int64_t stride_y;

  auto operator<=>(const Shape&) const = default;
};

/// A compiled product with the memory objects of one thread, whose pointers are set before each execution.
class Product {
 public:
  explicit Product(const Shape& shape) : Product(description(shape)) {}

  void run(const void* x, const void* weight, void* y, Context& context) {
    weight_.set_data_handle(const_cast<void*>(weight));
    run(x, weight_, y, context);
  }

  void run(const void* x, const memory& weight, void* y, Context& context) {
    const Arena::Scope scope(context.scratch);
    x_.set_data_handle(const_cast<void*>(x));
    y_.set_data_handle(y);
    scratch_.set_data_handle(context.scratch.take<std::byte, 1>({scratch_bytes_}).data);
    // The C function: the C++ one builds a hash table of arguments, 0.7 us a call.
    const std::array<dnnl_exec_arg_t, 4> arguments{{{DNNL_ARG_SRC, x_.get()},
                                                    {DNNL_ARG_WEIGHTS, weight.get()},
                                                    {DNNL_ARG_DST, y_.get()},
                                                    {DNNL_ARG_SCRATCHPAD, scratch_.get()}}};
    dnnl::error::wrap_c_api(
        dnnl_primitive_execute(matmul_.get(), stream().get(), arguments.size(), arguments.data()),
        "matrix product");
  }

 private:
  explicit Product(const dnnl::matmul::primitive_desc& description)
      : matmul_(description),
        x_(description.src_desc(), engine(), nullptr),
        weight_(description.weights_desc(), engine(), nullptr),
        y_(description.dst_desc(), engine(), nullptr),
        scratch_(description.scratchpad_desc(), engine(), nullptr),
        scratch_bytes_(static_cast<std::int64_t>(description.scratchpad_desc().get_size())) {}

  static dnnl::matmul::primitive_desc description(const Shape& s) {
    return describe(strided(s.m, s.k, s.type, s.stride_x[0], s.stride_x[1]),
                    s.stride_weight == Shape::kPacked ? packed_order(s.k, s.n, s.type)
                                                      : strided(s.k, s.n, s.type, s.stride_weight),
                    strided(s.m, s.n, s.type_y, s.stride_y), s.mode);
  }

  dnnl::matmul matmul_;
  memory x_;
  memory weight_;
  memory y_;
  memory scratch_;
  std::int64_t scratch_bytes_;
};

/// The calling thread's product of that shape. Threads share the compiled code through oneDNN's own cache.
Product& product(const Shape& shape) {
  thread_local std::map<Shape, Product> products;
  const auto found = products.find(shape);
  if (found != products.end()) return found->second;
  // One at a time: how that cache hands over what another thread is compiling, a thread sanitizer cannot see.
  static std::mutex compiling;
  const std::scoped_lock lock(compiling);
  return products.emplace(shape, Product(shape)).first->second;
}

/// How many of `rows` to multiply next: 256, else a multiple of 64, else of 16, else what is left. Any length
/// is made of 22 sizes, none of which is more than 5 % slower per row than 256 (below 16 rows, 3 to 25 %).
/// Where rows are summed up, at most 512: the sum is read and written once a piece.
std::int64_t piece_rows(std::int64_t rows, std::int64_t most = 256) {
  if (rows >= most) return most;
  if (rows >= 256) return 256;
  if (rows >= 64) return rows - rows % 64;
  if (rows >= 16) return rows - rows % 16;
  return rows;
}

template <class From, class To>
void convert(View<const From, 2> from, View<To, 2> to) {
  for (std::int64_t m = 0; m < from.shape[0]; ++m) {
    for (std::int64_t d = 0; d < from.shape[1]; ++d)
      *(to.at(m) + d) = To(static_cast<float>(*(from.at(m) + d)));
  }
}

template <class To, class From>
View<To, 2> converted(View<const From, 2> x, Context& context) {
  const View<To, 2> result = context.scratch.take<To, 2>(x.shape);
  convert(x, result);
  return result;
}

/// oneDNN falls back to its reference code, 500 times slower, where an operand's rows lie apart (columns of a
/// wider matrix). Those of a model are narrow: a copy is cheap.
template <class T>
View<const T, 2> packed(View<const T, 2> x, Context& context) {
  return x.packed() ? x : converted<T>(x, context);
}

}  // namespace

template <class T>
struct PackedMatrix<T>::Store {
  std::int64_t k;
  std::int64_t n;
  memory data;

  Store(std::int64_t rows, std::int64_t columns)
      : k(rows), n(columns), data(packed_order(rows, columns, product_type<T>()), engine()) {}

  void fill(const memory::desc& order, View<const float, 2> weight) {
    memory source(order, engine(), const_cast<float*>(weight.data));
    dnnl::reorder(source, data).execute(stream(), source, data);
  }
};

template <class T>
PackedMatrix<T>::PackedMatrix() = default;
template <class T>
PackedMatrix<T>::~PackedMatrix() = default;
template <class T>
PackedMatrix<T>::PackedMatrix(PackedMatrix&&) noexcept = default;
template <class T>
PackedMatrix<T>& PackedMatrix<T>::operator=(PackedMatrix&&) noexcept = default;

template <class T>
void PackedMatrix<T>::pack(View<const float, 2> weight) {
  const OneThread one_thread;
  const auto [k, n] = weight.shape;
  if (empty() || store_->k != k || store_->n != n) store_ = std::make_unique<Store>(k, n);
  store_->fill(strided(k, n, DataType::f32, weight.stride[0]), weight);
}

template <class T>
void PackedMatrix<T>::pack_transposed(View<const float, 2> weight) {
  const OneThread one_thread;
  const auto [n, k] = weight.shape;
  if (empty() || store_->k != k || store_->n != n) store_ = std::make_unique<Store>(k, n);
  store_->fill(strided(k, n, DataType::f32, 1, weight.stride[0]), weight);
}

template <class T>
void PackedMatrix<T>::clear() {
  store_.reset();
}

namespace {

/// y = x weight in the types given, which are those that oneDNN multiplies.
template <class T, class Out>
void multiply_pieces(View<const T, 2> x, const memory& weight, View<Out, 2> y, GradientMode mode,
                     Context& context) {
  const OneThread one_thread;
  Shape shape{.type = product_type<T>(),
              .type_y = product_type<Out>(),
              .mode = mode,
              .m = 0,
              .k = x.shape[1],
              .n = y.shape[1],
              .stride_x = {x.stride[0], 1},
              .stride_weight = Shape::kPacked,
              .stride_y = y.stride[0]};
  for (std::int64_t m = 0; m < x.shape[0]; m += shape.m) {
    shape.m = piece_rows(x.shape[0] - m);
    product(shape).run(x.at(m), weight, y.at(m), context);
  }
}

template <class T>
void add_transposed_product_pieces(View<const T, 2> a, View<const T, 2> b, View<float, 2> c,
                                   Context& context) {
  const OneThread one_thread;
  Shape shape{.type = product_type<T>(),
              .type_y = DataType::f32,
              .mode = GradientMode::accumulate,
              .m = a.shape[1],
              .k = 0,
              .n = b.shape[1],
              .stride_x = {1, a.stride[0]},
              .stride_weight = b.stride[0],
              .stride_y = c.stride[0]};
  for (std::int64_t m = 0; m < a.shape[0]; m += shape.k) {
    shape.k = piece_rows(a.shape[0] - m, /*most=*/512);
    product(shape).run(a.at(m), b.at(m), c.data, context);
  }
}

}  // namespace

template <class T, class Out>
void multiply(View<const T, 2> x, const PackedMatrix<T>& matrix, View<Out, 2> y, GradientMode mode,
              Context& context) {
  const Arena::Scope scope(context.scratch);
  const memory& weight = matrix.store().data;
  if (std::is_same_v<T, float> || has_bfloat16_products()) {
    const View<const T, 2> packed_x = packed(x, context);
    if (y.packed()) return multiply_pieces(packed_x, weight, y, mode, context);
    const View<Out, 2> packed_y = converted<Out, Out>(y, context);
    multiply_pieces(packed_x, weight, packed_y, mode, context);
    convert<Out, Out>(packed_y, y);
    return;
  }
  const View<const float, 2> float_x = converted<float>(x, context);
  const View<float, 2> float_y = converted<float, Out>(y, context);
  multiply_pieces(float_x, weight, float_y, mode, context);
  convert<float, Out>(float_y, y);
}

template <class T>
void add_transposed_product(View<const T, 2> a, View<const T, 2> b, View<float, 2> c, Context& context) {
  const Arena::Scope scope(context.scratch);
  if (std::is_same_v<T, float> || has_bfloat16_products()) {
    return add_transposed_product_pieces(packed(a, context), packed(b, context), c, context);
  }
  const View<const float, 2> float_a = converted<float>(a, context);
  const View<const float, 2> float_b = converted<float>(b, context);
  add_transposed_product_pieces(float_a, float_b, c, context);
}

bool has_bfloat16_products() {
  constexpr auto kNeeded = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
  return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & kNeeded) == kNeeded;
}

template class PackedMatrix<float>;
template class PackedMatrix<bfloat16>;

template void multiply(View<const float, 2>, const PackedMatrix<float>&, View<float, 2>, GradientMode,
                       Context&);
template void multiply(View<const bfloat16, 2>, const PackedMatrix<bfloat16>&, View<bfloat16, 2>,
                       GradientMode, Context&);
template void multiply(View<const bfloat16, 2>, const PackedMatrix<bfloat16>&, View<float, 2>, GradientMode,
                       Context&);

template void add_transposed_product(View<const float, 2>, View<const float, 2>, View<float, 2>, Context&);
template void add_transposed_product(View<const bfloat16, 2>, View<const bfloat16, 2>, View<float, 2>,
                                     Context&);

}  // namespace longstrand::cpu
