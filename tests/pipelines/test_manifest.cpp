#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "io/input_error.hpp"
#include "pipelines/manifest.hpp"
#include "support/temporary_directory.hpp"

namespace longstrand::pipelines {
namespace {

std::string write(const test::TemporaryDirectory& folder, const std::string& content) {
  const auto path = folder / "table.tsv";
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

TEST(Manifest, JoinsPathsToItsFolderAndSortsLabels) {
  const test::TemporaryDirectory folder;
  const auto manifest = read_manifest(
      write(folder, "# made by hand\nlabel\tpath\r\nzebra\tz.fa\r\n\nant\t/data/a.fa\nzebra\tsub/y.fa"));
  ASSERT_EQ(manifest.entries.size(), 3U);
  EXPECT_EQ(manifest.entries[0].path, folder / "z.fa");
  EXPECT_EQ(manifest.entries[1].path, "/data/a.fa");
  EXPECT_EQ(manifest.entries[2].path, folder / "sub/y.fa");
  EXPECT_EQ(manifest.labels, (std::vector<std::string>{"ant", "zebra"}));
  EXPECT_EQ(manifest.class_of("zebra"), 1);
  EXPECT_EQ(manifest.class_of("bee"), -1);
  EXPECT_FALSE(manifest.entries[0].split);
}

TEST(Manifest, ReadsSplits) {
  const test::TemporaryDirectory folder;
  const auto manifest =
      read_manifest(write(folder, "path\tlabel\tsplit\na\tx\ttrain\nb\tx\ttest\nc\ty\tvalid\n"));
  EXPECT_EQ(manifest.entries[0].split, Split::train);
  EXPECT_EQ(manifest.entries[1].split, Split::test);
  EXPECT_EQ(manifest.entries[2].split, Split::valid);
}

struct BadTable {
  const char* content;
  const char* message;  // a part of it
};

TEST(Manifest, NamesFileAndLineOfWhatIsWrong) {
  const BadTable cases[] = {
      {"", "is empty"},
      {"path\tname\na\tb\n", "line 1: expected a header with the columns path and label"},
      {"path label\na b\n", "line 1: expected a header"},
      {"path\tlabel\n", "lists no files"},
      {"path\tlabel\na\n", "line 2: 1 columns where the header has 2"},
      {"path\tlabel\n\na\t\n", "line 3: empty label"},
      {"path\tlabel\na\tx\na\ty\n", "line 3: path"},
      {"path\tlabel\tsplit\na\tx\tdev\n", "line 2: split 'dev'"},
      {"path\tlabel\na\tBact\xE9rie\n", "line 2: the label is not UTF-8"},
  };
  const test::TemporaryDirectory folder;
  for (const auto& [content, message] : cases) {
    const auto path = write(folder, content);
    try {
      read_manifest(path);
      ADD_FAILURE() << "accepted: " << content;
    } catch (const io::InputError& error) {
      const std::string text = error.what();
      EXPECT_NE(text.find(message), std::string::npos) << text;
      EXPECT_NE(text.find(path), std::string::npos) << text;
    }
  }
  EXPECT_THROW(read_manifest(folder / "absent.tsv"), io::InputError);
  EXPECT_THROW(read_manifest(folder / "."), io::InputError);
}

TEST(SplitTable, HoldsRecordsWithoutANameAndRefusesPathsThatItCannot) {
  const test::TemporaryDirectory folder;
  SplitWriter writer(folder / "split.tsv");
  for (const char* path : {"/d/a\tb.fa", "#a.fa", "a\nb.fa"}) {
    EXPECT_THROW(writer.write({path, "chr1", 0, 0, 8, "ant", Split::train}), io::InputError) << path;
  }
  writer.write({"/d/a.fa", "", 3, 0, 8, "ant", Split::train});
  writer.commit();
  std::int64_t windows = 0;
  read_split(folder / "split.tsv", [&](const SplitWindow& window) {
    EXPECT_EQ(window.record, "");
    EXPECT_EQ(window.record_index, 3);
    ++windows;
  });
  EXPECT_EQ(windows, 1);
}

TEST(SplitTable, ReadsBackWhatIsWritten) {
  const test::TemporaryDirectory folder;
  const auto path = folder / "split.tsv";
  const SplitWindow first{"/d/a.fa", "chr1", 0, 0, 4096, "ant", Split::train};
  const SplitWindow second{"/d/b.fa", "gi|1|x", 7, 5'000'000'000, 5'000'004'096, "zebra", Split::test};
  SplitWriter writer(path);
  writer.write(first);
  writer.write(second);
  writer.commit();
  std::vector<SplitWindow> read;
  read_split(path, [&](const SplitWindow& window) { read.push_back(window); });
  ASSERT_EQ(read.size(), 2U);
  EXPECT_EQ(read[0].path, first.path);
  EXPECT_EQ(read[1].record, second.record);
  EXPECT_EQ(read[1].record_index, second.record_index);
  EXPECT_EQ(read[1].start, second.start);
  EXPECT_EQ(read[1].end, second.end);
  EXPECT_EQ(read[1].label, second.label);
  EXPECT_EQ(read[1].split, second.split);
}

TEST(SplitTable, NamesFileAndLineOfWhatIsWrong) {
  const std::string header = "path\trecord\trecord_index\tstart\tend\tlabel\tsplit\n";
  const BadTable cases[] = {
      {"path\tlabel\n", "line 1: expected the header path record"},
      {"path\trecord\trecord_index\tstart\tend\tlabel\tsplit\na\tr\t0\t-1\t5\tx\ttest\n",
       "line 2: start '-1'"},
      {"path\trecord\trecord_index\tstart\tend\tlabel\tsplit\na\tr\t0\t1\t5x\tx\ttest\n", "line 2: end '5x'"},
      {"path\trecord\trecord_index\tstart\tend\tlabel\tsplit\na\tr\t0\t9\t5\tx\ttest\n",
       "line 2: end 5 before start 9"},
      {"path\trecord\trecord_index\tstart\tend\tlabel\tsplit\na\tr\t0\t1\t5\tx\tTest\n",
       "line 2: split 'Test'"},
  };
  const test::TemporaryDirectory folder;
  for (const auto& [content, message] : cases) {
    const auto path = write(folder, content);
    try {
      read_split(path, [](const SplitWindow&) {});
      ADD_FAILURE() << "accepted: " << content;
    } catch (const io::InputError& error) {
      EXPECT_NE(std::string(error.what()).find(message), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace longstrand::pipelines
