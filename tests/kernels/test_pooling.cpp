#include <gtest/gtest.h>

#include "kernels/pooling.hpp"
#include "tests/support/guarded.hpp"
#include "tests/support/random.hpp"
#include "tests/support/tolerances.hpp"

namespace longstrand {
namespace {

using Doubles = std::vector<double>;

constexpr std::int64_t kLanes = 3;
constexpr std::int64_t kTokens = 150;    // more than a block of a GPU has
constexpr std::int64_t kChannels = 132;  // likewise
constexpr Pooling kModes[] = {Pooling::mean, Pooling::last, Pooling::max};

/// Rows of which `valid` count; the rest is NaN.
template <class T>
struct Chunk {
  Chunk(std::vector<std::int64_t> valid_tokens, std::uint64_t stream)
      : hidden({kLanes, kTokens, kChannels}, 4), valid({kLanes}) {
    valid.assign({valid_tokens.begin(), valid_tokens.end()});
    Random random(stream);
    std::int64_t i = 0;
    hidden.fill([&] {
      const std::int64_t row = i++ / kChannels;
      const double value = random.normal();
      return row % kTokens < valid_tokens[row / kTokens] ? value : std::numeric_limits<double>::quiet_NaN();
    });
  }
  Guarded<T, 3> hidden;
  Guarded<std::int64_t, 1> valid;
};

/// [B, D] over the valid rows of all chunks.
template <class T>
Doubles pooled_by_definition(const std::vector<const Chunk<T>*>& chunks, Pooling mode) {
  Doubles pooled(kLanes * kChannels, mode == Pooling::max ? -1e300 : 0.0);
  for (const Chunk<T>* chunk : chunks) {
    const Doubles hidden = chunk->hidden.values();
    const Doubles valid = chunk->valid.values();
    for (std::size_t i = 0; i < hidden.size(); ++i) {
      const std::size_t row = i / kChannels;
      if (static_cast<double>(row % kTokens) >= valid[row / kTokens]) continue;
      double& to = pooled[row / kTokens * kChannels + i % kChannels];
      if (mode == Pooling::mean) to += hidden[i];
      if (mode == Pooling::last) to = hidden[i];
      if (mode == Pooling::max) to = std::max(to, hidden[i]);
    }
  }
  return pooled;
}

template <class T>
void check_forward(Pooling mode) {
  Context context{device_under_test()};
  Chunk<T> first({kTokens, 4, 1}, 1);
  Chunk<T> second({3, 0, kTokens}, 2);
  Guarded<double, 2> pooled({kLanes, kChannels}, 1);
  pooled.fill([&] { return pooling_identity(mode); });
  for (Chunk<T>* chunk : {&first, &second}) {
    pooling_forward<T>(chunk->hidden, chunk->valid, mode, pooled, context);
  }
  expect_near("pooled", pooled.values(), pooled_by_definition<T>({&first, &second}, mode), tolerance::kExact);
}

LONGSTRAND_DEVICE_TEST(Pooling, TakesTheValidRowsOfAllChunks) {
  for (const Pooling mode : kModes) {
    SCOPED_TRACE(static_cast<int>(mode));
    check_forward<float>(mode);
    check_forward<bfloat16>(mode);
  }
}

/// A hundred million rows of ones: where a float would have stood still at 2^24.
LONGSTRAND_DEVICE_TEST(Pooling, SumsInDoubleDoNotStandStill) {
  Context context{device_under_test()};
  constexpr std::int64_t kRows = 1000;
  Guarded<float, 3> hidden({1, kRows, 1});
  Guarded<std::int64_t, 1> valid({1});
  Guarded<double, 2> pooled({1, 1});
  hidden.fill([] { return 1.0; });
  valid.fill([] { return static_cast<double>(kRows); });
  pooled.fill([] { return 1e8; });
  pooling_forward<float>(hidden, valid, Pooling::mean, pooled, context);
  EXPECT_EQ(pooled.values()[0], 1e8 + kRows);
}

/// pooled . d_pooled is linear in hidden for mean and last: its gradient is what each row is counted with.
template <class T>
void check_backward(Pooling mode) {
  Context context{device_under_test()};
  Guarded<float, 2> d_pooled({kLanes, kChannels}, 4);
  Guarded<std::int64_t, 1> valid({kLanes});
  Guarded<std::uint8_t, 1> is_last({kLanes});
  Guarded<T, 3> d_hidden({kLanes, kTokens, kChannels}, 4);
  Random random(3);
  d_pooled.fill([&] { return to_double(from_double<T>(random.normal())); });
  const std::vector<std::int64_t> valid_tokens = {kTokens, 4, 6};
  valid.assign({valid_tokens.begin(), valid_tokens.end()});
  is_last.assign({1, 0, 1});

  Doubles expected(kLanes * kTokens * kChannels, 0.0);
  const Doubles gradient = d_pooled.values();
  for (std::int64_t i = 0; i < kLanes * kTokens * kChannels; ++i) {
    const std::int64_t lane = i / (kTokens * kChannels);
    const std::int64_t t = i / kChannels % kTokens;
    const bool counted =
        mode == Pooling::mean ? t < valid_tokens[lane] : lane != 1 && t == valid_tokens[lane] - 1;
    if (counted) expected[i] = gradient[lane * kChannels + i % kChannels];
  }
  pooling_backward<T>(d_pooled, valid, is_last, mode, d_hidden, context);
  expect_near("d_hidden", d_hidden.values(), expected, tolerance::kExact);
}

LONGSTRAND_DEVICE_TEST(Pooling, GivesTheGradientToTheRowsThatCounted) {
  for (const Pooling mode : {Pooling::mean, Pooling::last}) {
    check_backward<float>(mode);
    check_backward<bfloat16>(mode);
  }
}

LONGSTRAND_DEVICE_TEST(Pooling, HasNoBackwardOfTheMaximum) {
  Context context{device_under_test()};
  Chunk<float> chunk({1, 1, 1}, 4);
  Guarded<float, 2> d_pooled({kLanes, kChannels});
  Guarded<std::uint8_t, 1> is_last({kLanes});
  EXPECT_THROW(pooling_backward<float>(d_pooled, chunk.valid, is_last, Pooling::max, chunk.hidden, context),
               std::logic_error);
}

}  // namespace
}  // namespace longstrand
