// AdamW (Loshchilov & Hutter 2019) over a flat range of parameters, and the sum of squares for clipping.
#pragma once

#include "kernels/context.hpp"
#include "kernels/view.hpp"

namespace longstrand {

/// In double: 1 - beta2 of a float 0.999 would be off by 1e-5.
struct AdamWOptions {
  double learning_rate = 0;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0;
  double gradient_scale = 1;  // clipping
  std::int64_t step = 1;      // 1 for the first update
};

/// g = gradient_scale * gradient; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
/// w -= learning_rate (m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + epsilon) + weight_decay w). All
/// are [P].
void adamw_step(View<float, 1> weight, View<const float, 1> gradient, View<float, 1> m, View<float, 1> v,
                const AdamWOptions& options, Context& context);

/// In double and in an order that depends on the count alone: on one machine, equal inputs give equal bits.
double sum_of_squares(View<const float, 1> values, Context& context);

}  // namespace longstrand
