// Operations recorded on a GPU are done when they are replayed, as often as they are; a recording that failed
// leaves the context as good as it was.
#include <gtest/gtest.h>

#include <stdexcept>

#include "kernels/cuda_graph.hpp"
#include "kernels/memory.hpp"
#include "kernels/transfer.hpp"
#include "support/device_under_test.hpp"

namespace longstrand {
namespace {

std::vector<float> on_host(View<const float, 1> from, Context& context) {
  std::vector<float> values(static_cast<std::size_t>(from.size()));
  copy(from, View<float, 1>(values.data(), from.shape), context);
  return values;
}

LONGSTRAND_CUDA_TEST(Graph, EveryReplayDoesWhatWasRecorded) {
  if constexpr (kCudaBuilt) {
    Context context(device_under_test());
    const Array<float, 1> from({1000}, context.device), to({1000}, context.device);
    const auto graph = cuda::capture(
        [&] {
          copy(from.view(), to.view(), context);
          fill(from.view(), 3.0F, context);
        },
        context);
    fill(from.view(), 1.0F, context);
    EXPECT_EQ(on_host(to.view(), context), std::vector<float>(1000, 0.0F)) << "done while it was recorded";
    for (const float before : {1.0F, 3.0F}) {
      cuda::launch(*graph, context);
      EXPECT_EQ(on_host(to.view(), context), std::vector<float>(1000, before));
    }
  }
}

LONGSTRAND_CUDA_TEST(Graph, AFailedRecordingLeavesTheContextUsable) {
  if constexpr (kCudaBuilt) {
    Context context(device_under_test());
    const Array<float, 1> values({10}, context.device);
    const auto waiting = [&] { context.synchronize(); };
    const auto allocating = [&] { context.scratch.take<float, 1>({std::int64_t{1} << 20}); };
    const auto throwing = [&] {
      fill(values.view(), 2.0F, context);
      throw std::logic_error("thrown while operations are recorded");
    };
    EXPECT_THROW(cuda::capture(waiting, context), std::runtime_error);
    EXPECT_THROW(cuda::capture(allocating, context), std::runtime_error);
    EXPECT_THROW(cuda::capture(throwing, context), std::logic_error);
    fill(values.view(), 1.0F, context);
    EXPECT_EQ(on_host(values.view(), context), std::vector<float>(10, 1.0F));
  }
}

}  // namespace
}  // namespace longstrand
