#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <limits>

#include "io/tsv_writer.hpp"
#include "support/temporary_directory.hpp"

namespace longstrand::io {
namespace {

TEST(TsvWriter, RowsStayRowsWhateverTheNames) {
  const test::TemporaryDirectory directory;
  const std::array<std::string, 4> columns{"record", "start", "score", "p"};
  TsvWriter table(directory / "out.tsv", columns);
  table.cell("a\tb\nc\rd\\e").cell(std::int64_t{1} << 40).cell(0.1).cell(0.1F).end_row();
  table.cell("").cell(std::int64_t{-1}).cell(1e300).cell(std::numeric_limits<float>::quiet_NaN()).end_row();
  table.commit();
  EXPECT_EQ(test::content_of(directory / "out.tsv"),
            "record\tstart\tscore\tp\n"
            "a\\tb\\nc\\rd\\\\e\t1099511627776\t0.1\t0.1\n"
            "\t-1\t1e+300\tnan\n");
}

TEST(TsvWriter, NumbersReadBackAsTheSame) {
  const test::TemporaryDirectory directory;
  const std::array<double, 4> numbers{1.0 / 3, 5e-324, 123456789.123456789, -0.0};
  const std::array<std::string, 1> columns{"x"};
  TsvWriter table(directory / "out.tsv", columns);
  for (const double number : numbers) {
    table.cell(number).end_row();
  }
  table.commit();
  std::ifstream file(directory / "out.tsv");
  std::string line;
  std::getline(file, line);
  for (const double number : numbers) {
    std::getline(file, line);
    EXPECT_EQ(std::strtod(line.c_str(), nullptr), number) << line;
  }
}

}  // namespace
}  // namespace longstrand::io
