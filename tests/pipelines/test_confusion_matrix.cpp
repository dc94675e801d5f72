#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "pipelines/confusion_matrix.hpp"

namespace longstrand::pipelines {
namespace {

// Rows are the truth: 5 of a (4 found, 1 taken for b), 3 of b (2 found, 1 taken for a), 2 of c (both taken
// for b).
ConfusionMatrix example() {
  ConfusionMatrix matrix({"a", "b", "c"});
  const int samples[][3] = {{0, 0, 4}, {0, 1, 1}, {1, 1, 2}, {1, 0, 1}, {2, 1, 2}};
  for (const auto& [truth, predicted, times] : samples) {
    for (int i = 0; i < times; ++i) matrix.add(truth, predicted);
  }
  return matrix;
}

TEST(ConfusionMatrix, AgreesWithFiguresWorkedOutByHand) {
  const ConfusionMatrix matrix = example();
  EXPECT_EQ(matrix.total(), 10);
  EXPECT_DOUBLE_EQ(matrix.accuracy(), 0.6);
  EXPECT_DOUBLE_EQ(matrix.precision(0), 4.0 / 5);
  EXPECT_DOUBLE_EQ(matrix.recall(0), 4.0 / 5);
  EXPECT_DOUBLE_EQ(matrix.precision(1), 2.0 / 5);
  EXPECT_DOUBLE_EQ(matrix.recall(1), 2.0 / 3);
  EXPECT_DOUBLE_EQ(matrix.f1(0), 0.8);
  EXPECT_DOUBLE_EQ(matrix.f1(1), 0.5);
  EXPECT_DOUBLE_EQ(matrix.f1(2), 0.0);
  EXPECT_DOUBLE_EQ(matrix.macro_f1(), (0.8 + 0.5) / 3);
}

TEST(ConfusionMatrix, SwappingTruthAndPredictionSwapsPrecisionAndRecall) {
  const ConfusionMatrix matrix = example();
  ConfusionMatrix swapped(matrix.labels());
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) {
      for (int k = 0; k < matrix.count(i, j); ++k) swapped.add(j, i);
    }
  }
  EXPECT_DOUBLE_EQ(swapped.accuracy(), matrix.accuracy());
  EXPECT_DOUBLE_EQ(swapped.macro_f1(), matrix.macro_f1());
  for (int i = 0; i < 3; ++i) EXPECT_DOUBLE_EQ(swapped.precision(i), matrix.recall(i));
}

TEST(ConfusionMatrix, MacroF1LeavesOutClassesThatNeverOccur) {
  ConfusionMatrix matrix({"a", "b", "never"});
  matrix.add(0, 0);
  matrix.add(1, 1);
  EXPECT_DOUBLE_EQ(matrix.macro_f1(), 1.0);
}

TEST(ConfusionMatrix, WithoutSamplesAllFiguresAreZero) {
  const ConfusionMatrix matrix({"a", "b"});
  EXPECT_EQ(matrix.accuracy(), 0.0);
  EXPECT_EQ(matrix.macro_f1(), 0.0);
}

TEST(ConfusionMatrix, JsonCarriesTheCounts) {
  const nlohmann::json json = example().to_json();
  EXPECT_EQ(json["samples"], 10);
  EXPECT_EQ(json["confusion"], nlohmann::json::parse("[[4,1,0],[1,2,0],[0,2,0]]"));
  EXPECT_EQ(json["classes"][2]["label"], "c");
  EXPECT_EQ(json["classes"][2]["samples"], 2);
}

}  // namespace
}  // namespace longstrand::pipelines
