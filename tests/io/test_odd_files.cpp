// Files that broke other readers; see tests/data/odd/README.md.

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

#include "io/input_error.hpp"
#include "io/sequence_source.hpp"
#include "io/sequence_statistics.hpp"

namespace longstrand::io {
namespace {

const std::string kFolder = std::string(LONGSTRAND_TEST_DATA) + "/odd/";

struct Expected {
  std::string file;
  std::string reference;
  std::string samtools;
  std::string kind;  // or "error"
  std::string records;
  std::string bases;
  std::string message;
};

std::vector<Expected> expected_table() {
  std::ifstream file(kFolder + "expected.tsv");
  std::string line;
  std::getline(file, line);  // the header
  std::vector<Expected> table;
  while (std::getline(file, line)) {
    std::istringstream columns(line);
    Expected& row = table.emplace_back();
    for (std::string* column :
         {&row.file, &row.reference, &row.samtools, &row.kind, &row.records, &row.bases, &row.message}) {
      std::getline(columns, *column, '\t');
    }
  }
  return table;
}

void expect_statistics(const Expected& row, int threads) {
  SourceOptions options;
  options.decompression_threads = threads;
  options.exclude_flags = 0;  // as samtools view -c counts
  if (row.reference != "-") options.reference = kFolder + row.reference;
  const SequenceStatistics found = sequence_statistics(kFolder + row.file, options);
  EXPECT_EQ(kind_name(found.kind), row.kind);
  EXPECT_EQ(std::to_string(found.records), row.records);
  EXPECT_EQ(std::to_string(found.bases), row.bases);
}

TEST(OddFiles, GiveTheRecordsOrTheErrorExpected) {
  const auto table = expected_table();
  ASSERT_GE(table.size(), 30U) << "the table was not found";
  for (const Expected& row : table) {
    for (const int threads : {0, 1}) {
      SCOPED_TRACE(testing::Message() << row.file << ", " << threads << " threads more");
      try {
        expect_statistics(row, threads);
      } catch (const InputError& error) {
        EXPECT_EQ(row.kind, "error") << error.what();
        EXPECT_NE(std::string(error.what()).find(row.message), std::string::npos) << error.what();
      }
    }
  }
}

}  // namespace
}  // namespace longstrand::io
