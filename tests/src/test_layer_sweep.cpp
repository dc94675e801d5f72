// A projection that both directions share is made for the whole sheet, or chunk by chunk where that is large:
// the same rows, states and gradients.
#include <gtest/gtest.h>

#include "bidirectional_support.hpp"
#include "kernels/transfer.hpp"
#include "src/layer_sweep.hpp"
#include "support/tolerances.hpp"

namespace longstrand::test {
namespace {

struct Passes {
  std::vector<float> hidden, d_embedding, gradients;
};

/// Forward, and back with the hidden rows as their own gradient.
Passes run(const Model& model, std::int64_t shared_projection_bytes) {
  const std::vector<std::int64_t> lengths = {130, 61};
  Workers workers(2, device_under_test());
  Context& context = workers.main_context();
  ParameterStore weights = model.parameters().like(context.device);
  copy(model.parameters().all(), weights.all(), context);
  const Backbone<float> backbone(model.config(), weights, /*for_backward=*/true, context);
  LayerSweep<float> sweep(model.config(), backbone, on_device(), workers, shared_projection_bytes);
  RecordSheet sheet;
  sheet.start(lengths, model.config().equivariant ? 2 : 1, 100, /*with_targets=*/false);
  for (std::size_t r = 0; r < lengths.size(); ++r) {
    sheet.write(static_cast<std::int64_t>(r), 0, random_dna(lengths[r], r));
  }
  Arena arena(context.device);
  sweep.forward(sheet.upload(arena, context), backbone.layers(), /*for_backward=*/true);

  Passes passes;
  const auto append = [&]<int Rank>(const View<float, Rank>& view, std::vector<float>& to) {
    std::vector<float> values(static_cast<std::size_t>(view.size()));
    copy(view, View<float, Rank>(values.data(), view.shape), context);
    to.insert(to.end(), values.begin(), values.end());
  };
  for (std::int64_t i = 0; i < sheet.chunks(); ++i) {
    append(sweep.hidden(i), passes.hidden);
    fill(sweep.d_residual(i), 0.0F, context);
  }
  ParameterStore gradients = weights.like(), of_reverse = weights.like();
  sweep.backward({&gradients, &of_reverse});
  for (std::int64_t i = 0; i < sheet.chunks(); ++i) append(sweep.d_residual(i), passes.d_embedding);
  append(gradients.all(), passes.gradients);
  std::vector<float> others;
  append(of_reverse.all(), others);
  std::ranges::transform(passes.gradients, others, passes.gradients.begin(), std::plus<>());
  return passes;
}

LONGSTRAND_DEVICE_TEST(LayerSweep, SharesAProjectionOrNotWithTheSameResult) {
  for (const bool equivariant : {false, true}) {
    const Model model = moved_model(bidirectional({.equivariant = equivariant}));
    const auto shared = run(model, LayerSweep<float>::kSharedProjection_bytes);
    const auto apart = run(model, 0);
    EXPECT_LT(relative_error(apart.hidden, shared.hidden), tolerance::kForward.relative);
    EXPECT_LT(relative_error(apart.d_embedding, shared.d_embedding), tolerance::kBackward.relative);
    EXPECT_LT(relative_error(apart.gradients, shared.gradients), tolerance::kBackward.relative);
  }
}

}  // namespace
}  // namespace longstrand::test
