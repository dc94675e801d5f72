#include <gtest/gtest.h>
#include <htslib/faidx.h>

#include <set>
#include <string>
#include <vector>

#include "fixtures.hpp"
#include "io/input_error.hpp"
#include "io/region.hpp"
#include "io/sequence_source.hpp"
#include "support/temporary_directory.hpp"

namespace longstrand::io {

bool operator==(const Region& a, const Region& b) {
  return a.name == b.name && a.begin == b.begin && a.end == b.end;
}

std::ostream& operator<<(std::ostream& out, const Region& region) {
  return out << region.name << " [" << region.begin << ", " << region.end << ")";
}

namespace {

using namespace fixtures;

bool is_known(const std::string& name) {
  static const std::set<std::string> kNames = {"chr1", "HLA:01:02", "chr1:5-9", "a", "a:1-2", "{odd}", "x-y"};
  return kNames.count(name) > 0;
}

struct ParseCase {
  std::string text;
  Region region;
};

class ParseRegion : public testing::TestWithParam<ParseCase> {};

TEST_P(ParseRegion, Accepts) { EXPECT_EQ(parse_region(GetParam().text, is_known), GetParam().region); }

INSTANTIATE_TEST_SUITE_P(
    Good, ParseRegion,
    testing::Values(ParseCase{"chr1", {"chr1", 0, -1}}, ParseCase{"chr1:1", {"chr1", 0, -1}},
                    ParseCase{"chr1:10", {"chr1", 9, -1}}, ParseCase{"chr1:10-", {"chr1", 9, -1}},
                    ParseCase{"chr1:10-10", {"chr1", 9, 10}}, ParseCase{"chr1:-10", {"chr1", 0, 10}},
                    ParseCase{"chr1:1,000-2,000,000", {"chr1", 999, 2000000}},
                    ParseCase{"chr1:3000000000-3000000001", {"chr1", 2999999999, 3000000001}},
                    ParseCase{"HLA:01:02", {"HLA:01:02", 0, -1}},
                    ParseCase{"HLA:01:02:3-4", {"HLA:01:02", 2, 4}},
                    ParseCase{"{chr1:5-9}", {"chr1:5-9", 0, -1}}, ParseCase{"{chr1}:5-9", {"chr1", 4, 9}},
                    ParseCase{"{chr1:5-9}:2-3", {"chr1:5-9", 1, 3}},
                    ParseCase{"{{odd}}:2-3", {"{odd}", 1, 3}}, ParseCase{"x-y:2-3", {"x-y", 1, 3}}));

class ParseRegionError : public testing::TestWithParam<std::string> {};

TEST_P(ParseRegionError, Refuses) { EXPECT_THROW(parse_region(GetParam(), is_known), InputError); }

INSTANTIATE_TEST_SUITE_P(Bad, ParseRegionError,
                         testing::Values("", ":", "chr2", "chr2:1-2", "chr1:", "chr1:-", "chr1:0-5",
                                         "chr1:5-4", "chr1:x", "chr1:1-x", "chr1:1-2-3", "chr1:--5",
                                         "chr1:+5", "chr1: 5", "chr1:,5", "chr1:5,", "chr1:1e3",
                                         "chr1:99999999999999999999", "chr1:5-9", "a:1-2", "{chr1", "{chr1}x",
                                         "{chr1}:", "{chr2}", "{}", "{", "}"));

TEST(ParseRegion, ExplainsAnAmbiguousText) {
  try {
    parse_region("chr1:5-9", is_known);
    FAIL();
  } catch (const InputError& error) {
    EXPECT_STREQ(error.what(),
                 "region 'chr1:5-9' is both a sequence and a part of 'chr1'; write {chr1:5-9} or {chr1}:5-9");
  }
}

class RegionsFile : public testing::Test {
 protected:
  std::vector<Region> read(const std::string& name, const std::string& text,
                           Packing packing = Packing::plain) {
    write_file(folder_ / name, text, packing);
    return read_regions_file(folder_ / name);
  }

  test::TemporaryDirectory folder_;
};

TEST_F(RegionsFile, ReadsBed) {
  const std::vector<Region> wanted = {{"chr1", 0, 10}, {"chr3", 7, 9}};
  const std::string good = "#comment\ntrack name=x\nbrowser hide\n\nchr1\t0\t10\tname\t0\t+\r\nchr3 7 9";
  EXPECT_EQ(read("a.bed", good), wanted);
  EXPECT_EQ(read("b.bed.gz", good, Packing::bgzf), wanted);
  EXPECT_EQ(read("c.bed.gz", good, Packing::gzip), wanted);
}

TEST_F(RegionsFile, ReadsTabsAsOneBasedInclusive) {
  const std::vector<Region> wanted = {{"chr1", 0, 10}, {"chr 2", 4, 5}};
  EXPECT_EQ(read("a.tsv", "#CHROM\tFROM\tTO\nchr1\t1\t10\tname\nchr 2\t5\n"), wanted);
}

TEST_F(RegionsFile, NamesTheBadLine) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"a.bed", "chr1\t1\n"},      {"a.bed", "chr1\t5\t5\n"}, {"a.bed", "chr1\t-1\t5\n"},
      {"a.bed", "chr1\tx\t5\n"},   {"a.tsv", "chr1\n"},       {"a.tsv", "chr1\t0\t5\n"},
      {"a.tsv", "chr1\t5\t4\n"},   {"a.tsv", "chr1:1-5\n"},   {"a.bed", "chr1:1-5\n"},
      {"a.bed", "chr1\t\t5\t6\n"}, {"a.tsv", "chr1 5 6\n"},   {"a.bed", "\xff\xfe\n"},
      {"a.tsv", "chr1\t5\t4x\n"},
  };
  for (const auto& [name, line] : cases) {
    try {
      read(name, "\n" + line);
      ADD_FAILURE() << line << " was accepted";
    } catch (const InputError& error) {
      EXPECT_NE(std::string(error.what()).find(name + ": line 2: expected"), std::string::npos)
          << error.what();
    }
  }
}

class FastaRegions : public testing::TestWithParam<Packing> {
 protected:
  FastaRegions() : path_(folder_ / "genome.fa") {
    write_file(path_, as_fasta(sequences_, 50), GetParam(), 1000);
    EXPECT_EQ(fai_build(path_.c_str()), 0);
  }

  // The regions as records whose name says where they lie.
  Records read(const SourceOptions& options, std::size_t piece_bases = 333) {
    const auto source = open_sequences(path_, options);
    Records records;
    RecordInfo info;
    std::vector<char> piece(piece_bases);
    while (source->next_record(info)) {
      Record& record = records.emplace_back();
      record.name = info.name + "@" + std::to_string(info.begin);
      while (const std::int64_t count = source->read_bases(piece)) {
        record.bases.append(piece.data(), static_cast<std::size_t>(count));
      }
      EXPECT_EQ(info.length, std::ssize(record.bases));
    }
    return records;
  }

  std::string message_for(const SourceOptions& options) {
    try {
      open_sequences(path_, options);
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  }

  test::TemporaryDirectory folder_;
  std::string path_;
  Records sequences_ = {{"chr1", random_bases(2'500'000, 5)},
                        {"chr2", random_bases(1234, 6, "ACGTacgtN")},
                        {"c:3", "ACGTACGT"}};
};

TEST_P(FastaRegions, DeliverTheBasesAskedForInTheOrderAsked) {
  EXPECT_EQ(read({.regions = {"chr2:5-10", "chr1:1-1", "c:3", "chr2:5-10"}}),
            (Records{{"chr2@4", sequences_[1].bases.substr(4, 6)},
                     {"chr1@0", sequences_[0].bases.substr(0, 1)},
                     {"c:3@0", "ACGTACGT"},
                     {"chr2@4", sequences_[1].bases.substr(4, 6)}}));
}

TEST_P(FastaRegions, AreReadInPiecesOfAnySize) {
  for (const std::size_t piece : {1, 7, 1 << 20}) {
    EXPECT_EQ(read({.regions = {"chr2"}}, piece), (Records{{"chr2@0", sequences_[1].bases}}));
  }
  EXPECT_EQ(read({.regions = {"chr1:11-"}}), (Records{{"chr1@10", sequences_[0].bases.substr(10)}}));
}

TEST_P(FastaRegions, CombineTextsAndAFile) {
  write_file(folder_ / "r.bed", "chr1\t10\t20\n");
  EXPECT_EQ(read({.regions = {"chr2:1-2"}, .regions_file = folder_ / "r.bed"}),
            (Records{{"chr2@0", sequences_[1].bases.substr(0, 2)},
                     {"chr1@10", sequences_[0].bases.substr(10, 10)}}));
}

TEST_P(FastaRegions, MustExist) {
  write_file(folder_ / "r.bed", "chr9\t10\t20\n");
  EXPECT_NE(message_for({.regions = {"chr9"}}).find("no sequence has this name"), std::string::npos);
  EXPECT_NE(message_for({.regions_file = folder_ / "r.bed"}).find("no sequence is named 'chr9'"),
            std::string::npos);
  write_file(folder_ / "none.bed", "#nothing\n");
  EXPECT_EQ(message_for({.regions_file = folder_ / "none.bed"}), folder_ / "none.bed" + ": holds no regions");
  EXPECT_NE(message_for({.regions = {"chr2:1-1235"}}).find("which has 1234 bases"), std::string::npos);
  EXPECT_NE(message_for({.regions = {"chr2:1235"}}).find("which has 1234 bases"), std::string::npos);
  EXPECT_EQ(message_for({.regions = {"chr2:1234"}}), "");
}

TEST_P(FastaRegions, NameTheCommandThatMakesAMissingIndex) {
  std::filesystem::remove(path_ + (GetParam() == Packing::bgzf ? ".gzi" : ".fai"));
  EXPECT_EQ(message_for({.regions = {"chr1"}}),
            path_ + ": has no index; make it with: samtools faidx " + path_);
}

TEST_P(FastaRegions, NoticeLinesOfAnotherLength) {
  for (const std::size_t width : {0, 25, 49, 51, 100}) {  // the index is of lines of 50
    write_file(path_, as_fasta(sequences_, width), GetParam(), 1000);
    EXPECT_THROW(read({.regions = {"chr1:101-220"}}), InputError) << width;
    EXPECT_THROW(read({.regions = {"chr1:120-"}}, 1), InputError) << width;
  }
}

TEST_P(FastaRegions, NoticeAnIndexOfAnotherFile) {
  write_file(path_, as_fasta({{"chr1", "ACGT"}}), GetParam());
  EXPECT_THROW(read({.regions = {"chr1:2000000-2000100"}}), InputError);
}

INSTANTIATE_TEST_SUITE_P(Packings, FastaRegions, testing::Values(Packing::plain, Packing::bgzf),
                         [](const auto& packing) {
                           return packing.param == Packing::plain ? "plain" : "bgzf";
                         });

TEST(FastaRegionsOf, GzipAndFastqAreRefused) {
  const test::TemporaryDirectory folder;
  write_file(folder / "a.fa.gz", ">a\nACGT\n", Packing::gzip);
  EXPECT_THROW(open_sequences(folder / "a.fa.gz", {.regions = {"a"}}), InputError);
  write_file(folder / "a.fq", "@a\nACGT\n+\nIIII\n");
  EXPECT_THROW(open_sequences(folder / "a.fq", {.regions = {"a"}}), InputError);
  EXPECT_THROW(open_sequences("-", {.regions = {"a"}}), InputError);
}

}  // namespace
}  // namespace longstrand::io
