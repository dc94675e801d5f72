// The products of kernels/linear.hpp on one thread, over the shapes of a layer of d_model 256. One JSON
// object a case; in_proj forward at 256 rows is the most that oneDNN reaches on the machine, a share of which
// the others are to be read as.
#include <cstdio>
#include <functional>
#include <type_traits>

#include "kernels/linear.hpp"
#include "kernels/memory.hpp"
#include "tests/bench/median_time.hpp"

namespace longstrand {
namespace {

struct LayerShape {
  const char* layer;
  std::int64_t in, out;
  bool softplus = false;
};
constexpr LayerShape kShapes[] = {
    {"in_proj", 256, 1024}, {"x_proj", 512, 48}, {"dt_proj", 16, 512, true}, {"out_proj", 512, 256}};
constexpr std::int64_t kRows[] = {1, 15, 64, 77, 256, 512};

template <class T>
void report(const LayerShape& shape, std::int64_t rows, const char* direction,
            const std::function<void()>& call) {
  const double us = median_us(call);
  const double flop = 2.0 * static_cast<double>(rows * shape.in * shape.out);
  std::printf(
      R"({"case":"linear","layer":"%s","direction":"%s","type":"%s","rows":%lld,"in":%lld,"out":%lld,)"
      R"("us":%.2f,"gflops":%.1f})"
      "\n",
      shape.layer, direction, std::is_same_v<T, bfloat16> ? "bf16" : "fp32", static_cast<long long>(rows),
      static_cast<long long>(shape.in), static_cast<long long>(shape.out), us, flop / us * 1e-3);
}

template <class T>
void measure(const LayerShape& shape, std::int64_t rows) {
  Context context;
  const Array<float, 2> weight({shape.out, shape.in});
  const Array<float, 2> d_weight({shape.out, shape.in});
  const Array<T, 2> x({rows, shape.in});
  const Array<T, 2> y({rows, shape.out});
  PackedLinear<T> packed;
  if (rows == 64) {
    report<T>(shape, rows, "pack", [&] { packed.pack(weight.view(), true, context); });
  }
  packed.pack(weight.view(), true, context);
  report<T>(shape, rows, "forward", [&] { linear_forward<T, T>(x.view(), packed, y.view(), context); });
  if (shape.softplus) {
    const Array<float, 1> bias({shape.out});
    report<T>(shape, rows, "forward_softplus",
              [&] { linear_softplus_forward<T>(x.view(), packed, bias.view(), y.view(), context); });
  }
  report<T>(shape, rows, "backward_input",
            [&] { linear_backward_input<T>(y.view(), packed, x.view(), GradientMode::overwrite, context); });
  report<T>(shape, rows, "backward_weight",
            [&] { linear_backward_weight<T>(y.view(), x.view(), d_weight.view(), context); });
}

}  // namespace
}  // namespace longstrand

int main() {
  for (const longstrand::LayerShape& shape : longstrand::kShapes) {
    for (const std::int64_t rows : longstrand::kRows) {
      longstrand::measure<float>(shape, rows);
      longstrand::measure<longstrand::bfloat16>(shape, rows);
    }
  }
}
