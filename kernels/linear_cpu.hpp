// Matrix products on the calling thread, by oneDNN. Its headers are included by linear_cpu.cpp alone.
#pragma once

#include <memory>

#include "kernels/context.hpp"
#include "kernels/view.hpp"

namespace longstrand::cpu {

/// A matrix [K, N] in the order in which oneDNN reads it. Any number of threads may multiply by it at once.
template <class T>
class PackedMatrix {
 public:
  PackedMatrix();
  ~PackedMatrix();
  PackedMatrix(PackedMatrix&&) noexcept;
  PackedMatrix& operator=(PackedMatrix&&) noexcept;

  /// Copies `weight` [K, N].
  void pack(View<const float, 2> weight);
  /// Copies the transpose of `weight` [N, K].
  void pack_transposed(View<const float, 2> weight);
  void clear();
  bool empty() const { return store_ == nullptr; }

  struct Store;
  const Store& store() const { return *store_; }

 private:
  std::unique_ptr<Store> store_;
};

/// y [M, N] = x [M, K] matrix, or y += x matrix.
template <class T, class Out>
void multiply(View<const T, 2> x, const PackedMatrix<T>& matrix, View<Out, 2> y, GradientMode mode,
              Context& context);

/// c [N, K] += a^T b with a [M, N] and b [M, K].
template <class T>
void add_transposed_product(View<const T, 2> a, View<const T, 2> b, View<float, 2> c, Context& context);

bool has_bfloat16_products();

}  // namespace longstrand::cpu
