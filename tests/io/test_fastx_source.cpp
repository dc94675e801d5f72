// FASTA and FASTQ beyond the contract: odd but good files, bad files and what is said of them.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "fixtures.hpp"
#include "io/input_error.hpp"
#include "io/sequence_source.hpp"
#include "support/temporary_directory.hpp"

namespace longstrand::io {
namespace {

using namespace fixtures;

Records read_text(const std::string& text) {
  const test::TemporaryDirectory folder;
  write_file(folder / "in", text);
  return read_all(folder / "in", 3);
}

std::string message_for(const std::string& text) {
  try {
    read_text(text);
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

struct GoodCase {
  std::string why;
  std::string text;
  Records records;
};

class GoodText : public testing::TestWithParam<GoodCase> {};

TEST_P(GoodText, IsRead) { EXPECT_EQ(read_text(GetParam().text), GetParam().records) << GetParam().why; }

INSTANTIATE_TEST_SUITE_P(
    Fastx, GoodText,
    testing::Values(
        GoodCase{"white space in sequences is dropped", ">a\nAC GT\tA \n T\n", {{"a", "ACGTAT"}}},
        GoodCase{"lines of different lengths", ">a\nACGT\nA\nACG\n", {{"a", "ACGTAACG"}}},
        GoodCase{"blank lines between records", "\n\n>a\nAC\n\n\n>b\nGT\n\n", {{"a", "AC"}, {"b", "GT"}}},
        GoodCase{"CRLF blank lines", "\r\n>a\r\nAC\r\n\r\n>b\r\nGT\r\n", {{"a", "AC"}, {"b", "GT"}}},
        GoodCase{"the name ends at white space",
                 ">a some text > more\nAC\n>\tb\tx\nGT\n",
                 {{"a", "AC"}, {"b", "GT"}}},
        GoodCase{"a mark inside a line is no header", ">a\nAC>GT\n", {{"a", "AC>GT"}}},
        GoodCase{"a record may have no name", ">\nAC\n", {{"", "AC"}}},
        GoodCase{"a header alone is an empty record", ">a", {{"a", ""}}},
        GoodCase{"protein-like letters are the alphabet's concern", ">a\nMKV*\n", {{"a", "MKV*"}}},
        GoodCase{"equal names are different records", ">a\nA\n>a\nC\n", {{"a", "A"}, {"a", "C"}}},
        GoodCase{"the plus line may repeat or contradict the name", "@a\nAC\n+zzz\nII\n", {{"a", "AC"}}},
        GoodCase{
            "quality may begin with @ and +", "@a\nAC\n+\n@+\n@b\nGT\n+\n+@\n", {{"a", "AC"}, {"b", "GT"}}},
        GoodCase{
            "sequence and quality may be wrapped differently", "@a\nACG\nT\n+\nI\nIII\n", {{"a", "ACGT"}}},
        GoodCase{"an empty read may lack its blank lines", "@a\n+\n@b\nA\n+\nI\n", {{"a", ""}, {"b", "A"}}},
        GoodCase{"blanks count on neither side", "@a\nAC GT\n+\nII II\n", {{"a", "ACGT"}}}));

struct BadCase {
  std::string text;
  std::string line;
  std::string says;
};

class BadText : public testing::TestWithParam<BadCase> {};

TEST_P(BadText, IsRefusedWithItsLine) {
  const std::string message = message_for(GetParam().text);
  EXPECT_NE(message.find(GetParam().says), std::string::npos) << message;
  EXPECT_NE(message.find("line " + GetParam().line), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(Fastx, BadText,
                         testing::Values(BadCase{">a\nAC\n\nGT\n", "4", "after a blank line"},
                                         BadCase{">a\nAC\n\n;x\n", "4", "after a blank line"},
                                         BadCase{">a\rAC\r>b\rGT\r", "1", "carriage return"},
                                         BadCase{"@a\nAC\n+\nII\n>b\nAC\n", "5", "expected '@', found '>'"},
                                         BadCase{"@a\nAC\n@b\nAC\n+\nII\n", "3", "before the quality"},
                                         BadCase{"@a\nAC\n", "3", "ends before the quality"},
                                         BadCase{"@a\nAC\n+\nI\n", "5", "ends inside the quality"},
                                         BadCase{"@a\nAC\n+\nIII\n", "4", "longer than the 2 bases"},
                                         BadCase{"@a\nAC\n+\nI\x7f\n", "4", "byte 0x7f in the quality"},
                                         BadCase{"@a\nAC\n+\nI\n@b\nAC\n+\nII\n", "5",
                                                 "longer than the 2 bases"}));

TEST(FastxSource, KeepsTheDescription) {
  const test::TemporaryDirectory folder;
  write_file(folder / "in", ">chr1  Homo sapiens, complete \r\nA\n");
  RecordInfo record;
  ASSERT_TRUE(open_sequences(folder / "in")->next_record(record));
  EXPECT_EQ(record.name, "chr1");
  EXPECT_EQ(record.description, "Homo sapiens, complete ");
}

TEST(FastxSource, RefusesAHeaderWithoutEnd) {
  EXPECT_NE(message_for(">a\nA\n>" + std::string(2 << 20, 'x')).find("line longer than"), std::string::npos);
}

struct RefusedCase {
  std::string content;
  std::string says;
};

class Refused : public testing::TestWithParam<RefusedCase> {};

TEST_P(Refused, NamesWhatItHolds) {
  const std::string message = message_for(GetParam().content);
  EXPECT_NE(message.find(GetParam().says), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(
    Content, Refused,
    testing::Values(RefusedCase{"", "is empty"}, RefusedCase{"\n\n", "expected FASTA"},
                    RefusedCase{"##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n",
                                "VCF"},
                    RefusedCase{"chr1\t1\t20\tname\n", "BED"}, RefusedCase{"ACGT\n", "expected FASTA"},
                    RefusedCase{"; comment\n>a\nACGT\n", "expected FASTA"},
                    RefusedCase{"BZh91AY&SY", "bzip2"}));

TEST(OpenSequences, NamesAMissingFile) {
  try {
    open_sequences("/nonexistent/x.fa");
    FAIL();
  } catch (const InputError& error) {
    EXPECT_STREQ(error.what(), "/nonexistent/x.fa: cannot be opened: No such file or directory");
  }
}

TEST(OpenSequences, TakesAUrlForAPath) {
  EXPECT_THROW(open_sequences("http://127.0.0.1:1/x.fa"), InputError);
}

TEST(OpenSequences, RefusesAFolder) { EXPECT_THROW(open_sequences("/"), InputError); }

TEST(OpenSequences, ReadsConcatenatedBgzfAndGzip) {
  for (const Packing packing : {Packing::gzip, Packing::bgzf}) {
    for (const int threads : {0, 2}) {
      const test::TemporaryDirectory folder;
      write_file(folder / "a", ">a\nAC", packing);
      write_file(folder / "b", "GT\n>b\nTT\n", packing);
      write_file(folder / "ab", test::content_of(folder / "a") + test::content_of(folder / "b"));
      const auto source = open_sequences(folder / "ab", {.decompression_threads = threads});
      RecordInfo record;
      std::vector<char> bases(10);
      ASSERT_TRUE(source->next_record(record));
      ASSERT_EQ(source->read_bases(bases), 4);
      ASSERT_TRUE(source->next_record(record));
      ASSERT_EQ(source->read_bases(bases), 2);
      ASSERT_FALSE(source->next_record(record));
    }
  }
}

}  // namespace
}  // namespace longstrand::io
