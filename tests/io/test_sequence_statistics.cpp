#include <gtest/gtest.h>

#include <algorithm>

#include "fixtures.hpp"
#include "io/input_error.hpp"
#include "io/sequence_statistics.hpp"
#include "support/temporary_directory.hpp"

namespace longstrand::io {
namespace {

using namespace fixtures;

TEST(SequenceStatistics, CountsEveryLetterOnce) {
  const test::TemporaryDirectory folder;
  write_file(folder / "a.fa", ">x\nAAAAACCCCGGGTTU\n>empty\n>y\nacgtun\nNNRYryn*-\xff\n");
  const SequenceStatistics found = sequence_statistics(folder / "a.fa");
  EXPECT_EQ(found.kind, SequenceKind::fasta);
  EXPECT_EQ(found.records, 3);
  EXPECT_EQ(found.bases, 31);
  EXPECT_EQ(found.a, 6);
  EXPECT_EQ(found.c, 5);
  EXPECT_EQ(found.g, 4);
  EXPECT_EQ(found.t, 5);
  EXPECT_EQ(found.n, 4);
  EXPECT_EQ(found.other, 7);
  EXPECT_EQ(found.soft_masked, 9);
  EXPECT_EQ(found.longest, 16);
}

TEST(SequenceStatistics, AddUpOverLongRecords) {
  const test::TemporaryDirectory folder;
  const Records records = {{"x", random_bases(300'003, 1, "ACGTNacgtnR")}, {"y", random_bases(1'001, 2)}};
  write_file(folder / "a.fq", as_fastq(records));
  const SequenceStatistics found = sequence_statistics(folder / "a.fq");
  EXPECT_EQ(found.kind, SequenceKind::fastq);
  EXPECT_EQ(found.bases, 301'004);
  EXPECT_EQ(found.longest, 300'003);
  EXPECT_EQ(found.a + found.c + found.g + found.t + found.n + found.other, found.bases);
  const std::string all = records[0].bases + records[1].bases;
  EXPECT_EQ(found.other, std::count(all.begin(), all.end(), 'R'));
  EXPECT_EQ(found.soft_masked, std::count_if(all.begin(), all.end(), [](char c) { return c >= 'a'; }));
}

TEST(SequenceStatistics, FailWhereTheFileDoes) {
  const test::TemporaryDirectory folder;
  write_file(folder / "a.fq", "@x\nACGT\n+\nII");
  EXPECT_THROW(sequence_statistics(folder / "a.fq"), InputError);
}

}  // namespace
}  // namespace longstrand::io
