#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/embedding.hpp"
#include "tests/support/each_target.hpp"
#include "tests/support/guarded.hpp"
#include "tests/support/random.hpp"
#include "tests/support/tolerances.hpp"

namespace longstrand {
namespace {

struct Case {
  std::int64_t lanes, tokens, vocabulary, channels, gap;
  const char* reason;
};

const std::vector<Case> kCases = {
    {1, 1, 1, 1, 0, "the smallest"},
    {2, 64, 16, 256, 0, "chunks of a small model"},
    {3, 17, 12, 67, 5, "a tail of three, gaps between tokens and lanes"},
    {2, 3000, 16, 192, 0, "more rows and channels than a block of a GPU has"},
    {1, 40, 256, 5, 1, "every token that there can be, below a vector"},
};

struct Operands {
  explicit Operands(const Case& c)
      : random(static_cast<std::uint64_t>(c.tokens * 1009 + c.channels)),
        tokens({c.lanes, c.tokens}, c.gap),
        weight({c.vocabulary, c.channels}, c.gap),
        rows({c.lanes, c.tokens, c.channels}, c.gap) {
    tokens.fill([&] { return static_cast<double>(random.integer(0, c.vocabulary - 1)); });
  }
  Random random;
  Guarded<std::uint8_t, 2> tokens;
  Guarded<float, 2> weight;  // or its gradient
  Guarded<float, 3> rows;    // out, or its gradient
  Context context{device_under_test()};
};

template <class T>
void copies_the_row_of_each_token() {
  for (const Case& each : kCases) {
    SCOPED_TRACE(each.reason);
    Operands op(each);
    Guarded<T, 2> weight(op.weight.shape(), each.gap);
    Guarded<T, 3> rows(op.rows.shape(), each.gap);
    weight.fill([&] { return op.random.normal(); });
    embedding_forward<T>(op.tokens, weight, rows, op.context);
    std::vector<double> expected;
    const std::vector<double> values = weight.values();
    for (const double token : op.tokens.values()) {
      const auto row = values.begin() + static_cast<std::int64_t>(token) * each.channels;
      expected.insert(expected.end(), row, row + each.channels);
    }
    expect_near("out", rows.values(), expected, tolerance::kExact);
  }
}

LONGSTRAND_DEVICE_TEST(Embedding, CopiesTheRowOfEachToken) {
  copies_the_row_of_each_token<float>();
  copies_the_row_of_each_token<bfloat16>();
}

LONGSTRAND_DEVICE_TEST(Embedding, AddsEachRowsGradientToItsToken) {
  on_each_target([] {
    for (const Case& each : kCases) {
      SCOPED_TRACE(each.reason);
      Operands op(each);
      op.weight.fill([&] { return op.random.normal(); });
      op.rows.fill([&] { return op.random.normal(); });
      std::vector<double> expected = op.weight.values();
      const std::vector<double> tokens = op.tokens.values();
      const std::vector<double> d_out = op.rows.values();
      for (std::size_t i = 0; i < d_out.size(); ++i) {
        const auto channels = static_cast<std::size_t>(each.channels);
        expected[static_cast<std::size_t>(tokens[i / channels]) * channels + i % channels] += d_out[i];
      }
      embedding_backward(op.tokens, op.rows, op.weight, op.context);
      expect_near("d_weight", op.weight.values(), expected, tolerance::kBackward);
    }
  });
}

/// A GPU's tokens are not looked at beforehand: one outside of the vocabulary must read nothing.
LONGSTRAND_CUDA_TEST(Embedding, ATokenOutsideOfTheVocabularyIsNaN) {
  Operands op({1, 2, 12, 4, 0, ""});
  op.weight.fill([] { return 1.0; });
  op.tokens.assign({11, 12});
  embedding_forward<float>(op.tokens, op.weight, op.rows, op.context);
  const std::vector<double> out = op.rows.values();
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_EQ(std::isnan(out[i]), i >= 4);

  op.rows.fill([] { return 2.0; });
  embedding_backward(op.tokens, op.rows, op.weight, op.context);
  std::vector<double> expected(48, 1.0);
  std::fill(expected.end() - 4, expected.end(), 3.0);
  expect_near("d_weight", op.weight.values(), expected, tolerance::kExact);
}

LONGSTRAND_CUDA_TEST(Embedding, GivesTheSameBitsAgain) {
  Operands op({3, 7000, 16, 100, 0, ""});
  op.rows.fill([&] { return op.random.normal(); });
  std::vector<double> first;
  for (int run = 0; run < 3; ++run) {
    op.weight.fill([] { return 0.0; });
    embedding_backward(op.tokens, op.rows, op.weight, op.context);
    if (run == 0) first = op.weight.values();
    EXPECT_EQ(op.weight.values(), first);
  }
}

TEST(Embedding, RefusesATokenOutsideOfTheVocabulary) {
  Operands op({1, 4, 12, 3, 0, ""});
  op.weight.fill([] { return 0.0; });
  op.tokens.fill([] { return 12.0; });
  EXPECT_THROW(embedding_forward<float>(op.tokens, op.weight, op.rows, op.context), std::logic_error);
  op.rows.fill([] { return 0.0; });
  EXPECT_THROW(embedding_backward(op.tokens, op.rows, op.weight, op.context), std::logic_error);
}

}  // namespace
}  // namespace longstrand
