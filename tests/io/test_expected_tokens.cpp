// What a chunk stream says it will deliver, beside what it then delivers.

#include <gtest/gtest.h>
#include <htslib/faidx.h>

#include <string>
#include <vector>

#include "fixtures.hpp"
#include "io/chunk_stream.hpp"
#include "support/temporary_directory.hpp"

namespace longstrand::io {
namespace {

using namespace fixtures;

struct ExpectationCase {
  std::string name;
  std::vector<std::string> files;
  Packing packing = Packing::plain;
  int decompression_threads = 0;
  std::vector<std::string> regions{};
  ChunkStreamOptions options{};
};

std::vector<std::string> write_inputs(const ExpectationCase& given, const test::TemporaryDirectory& folder) {
  std::vector<std::string> paths;
  std::uint64_t seed = 1;
  for (const std::string& name : given.files) {
    Records records;
    for (int i = 0; i < 20; ++i) {
      records.push_back(
          {std::string("r").append(std::to_string(i)), random_bases(190'000 + 10'000 * (i % 3), seed++)});
    }
    paths.push_back(folder / name);
    const bool is_fastq = name.ends_with(".fq");
    write_file(paths.back(), is_fastq ? as_fastq(records) : as_fasta(records, 80), given.packing);
    EXPECT_EQ(fai_build(paths.back().c_str()) == 0, given.packing != Packing::gzip) << name;
  }
  return paths;
}

class ExpectedTokens : public testing::TestWithParam<ExpectationCase> {};

// Sizes are those of files, of which the reader is ahead by a block, or behind by the quality of a record, a
// twentieth of the bases here.
TEST_P(ExpectedTokens, ConvergeOnWhatIsDelivered) {
  const ExpectationCase& given = GetParam();
  const test::TemporaryDirectory folder;
  const SourceOptions source{.regions = given.regions, .decompression_threads = given.decompression_threads};
  ChunkStream stream(write_inputs(given, folder), source, given.options);
  struct Expectation {
    double delivered, expected;
  };
  std::vector<Expectation> expectations;
  double delivered = 0;
  for (TokenChunk chunk; stream.next(chunk);) {
    for (const std::int64_t valid : chunk.valid) delivered += static_cast<double>(valid);
    expectations.push_back({delivered, static_cast<double>(chunk.expected_tokens)});
  }
  ASSERT_FALSE(expectations.empty());
  for (const Expectation& now : expectations) {
    if (now.delivered < delivered / 5) continue;
    EXPECT_NEAR(now.expected, delivered, 0.12 * delivered) << "after " << now.delivered;
  }
  EXPECT_NEAR(expectations.back().expected, delivered, 0.03 * delivered);
}

INSTANTIATE_TEST_SUITE_P(
    Inputs, ExpectedTokens,
    testing::Values(
        ExpectationCase{.name = "Plain", .files = {"a.fa"}},
        ExpectationCase{.name = "QualityIsNoSequence", .files = {"a.fq"}},
        ExpectationCase{.name = "Gzip", .files = {"a.fa"}, .packing = Packing::gzip},
        ExpectationCase{.name = "Bgzf", .files = {"a.fa"}, .packing = Packing::bgzf},
        ExpectationCase{
            .name = "BgzfReadAhead", .files = {"a.fa"}, .packing = Packing::bgzf, .decompression_threads = 1},
        ExpectationCase{.name = "TwoFiles", .files = {"a.fa", "b.fa"}},
        ExpectationCase{
            .name = "Regions", .files = {"a.fa", "b.fa"}, .regions = {"r3", "r7:100-60000", "r19"}},
        ExpectationCase{.name = "Bundles", .files = {"a.fa"}, .options = {.bundle = 64}},
        ExpectationCase{.name = "Windows", .files = {"a.fa"}, .options = {.window = 1000}},
        ExpectationCase{.name = "Overlaps", .files = {"a.fa"}, .options = {.window = 1000, .stride = 300}},
        ExpectationCase{.name = "BehindSkippedRecords", .files = {"a.fa"}, .options = {.skip_records = 7}}),
    [](const auto& instance) { return instance.param.name; });

TEST(ExpectedTokensTest, AreUnknownWhereNothingCheapTells) {
  const test::TemporaryDirectory folder;
  const std::string path = folder / "reads.sam";
  write_alignments(path, "w", "@HD\tVN:1.6\n", {{.name = "a", .bases = "ACGT"}});
  ChunkStream stream({path}, SourceOptions{}, {});
  TokenChunk chunk;
  ASSERT_TRUE(stream.next(chunk));
  EXPECT_EQ(chunk.expected_tokens, -1);
}

}  // namespace
}  // namespace longstrand::io
