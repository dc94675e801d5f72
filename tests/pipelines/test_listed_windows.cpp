#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <utility>

#include "io/input_error.hpp"
#include "pipelines/listed_windows.hpp"

namespace longstrand::pipelines {
namespace {

using Records = std::vector<std::pair<std::string, std::string>>;

class MemorySource final : public io::SequenceSource {
 public:
  explicit MemorySource(Records records) : records_(std::move(records)) {}

  bool next_record(io::RecordInfo& record) override {
    if (next_ == records_.size()) return false;
    record = {};
    record.name = records_[next_].first;
    bases_ = records_[next_].second;
    ++next_;
    return true;
  }
  std::int64_t read_bases(std::span<char> out) override {
    const std::size_t count = bases_.copy(out.data(), out.size());
    bases_.erase(0, count);
    return static_cast<std::int64_t>(count);
  }
  io::SequenceKind kind() const override { return io::SequenceKind::fasta; }

 private:
  Records records_;
  std::size_t next_ = 0;
  std::string bases_;
};

std::string read_record(ListedWindows& windows, std::size_t piece) {
  std::string bases;
  std::vector<char> buffer(piece);
  while (const std::int64_t count = windows.read_bases(buffer)) bases.append(buffer.data(), count);
  return bases;
}

std::string random_bases(std::int64_t length, std::mt19937_64& random) {
  std::string bases(length, 'A');
  std::ranges::generate(bases, [&] { return "ACGTn"[random() % 5]; });
  return bases;
}

TEST(ListedWindows, DeliversWhatTheListNamesForAnyOverlapAndPiece) {
  std::mt19937_64 random(7);
  const Records records{
      {"a", random_bases(300, random)}, {"b", random_bases(50, random)}, {"c", random_bases(200, random)}};
  // Apart, touching, overlapping, one within another, twice the same, to the very end; b is not listed.
  const WindowList list{{0,
                         {"a",
                          {{0, 10},
                           {20, 40},
                           {40, 60},
                           {50, 90},
                           {55, 60},
                           {57, 120},
                           {57, 120},
                           {58, 300},
                           {200, 210},
                           {250, 300}}}},
                        {2, {"c", {{150, 200}}}}};
  for (const std::size_t piece : {1, 7, 64, 1000}) {
    ListedWindows windows(std::make_unique<MemorySource>(records), list, "memory");
    for (const auto& [index, listed] : list) {
      const auto& [name, bases] = records[static_cast<std::size_t>(index)];
      for (const ListedWindow& window : listed.windows) {
        io::RecordInfo record;
        ASSERT_TRUE(windows.next_record(record));
        EXPECT_EQ(record.name, name);
        EXPECT_EQ(record.begin, window.begin);
        EXPECT_EQ(record.length, window.end - window.begin);
        EXPECT_EQ(read_record(windows, piece), bases.substr(window.begin, window.end - window.begin))
            << name << ':' << window.begin << '-' << window.end << ", piece " << piece;
      }
    }
    io::RecordInfo record;
    EXPECT_FALSE(windows.next_record(record));
  }
}

TEST(ListedWindows, AWindowThatIsNotReadToItsEndDoesNotDisturbTheNext) {
  std::mt19937_64 random(8);
  const std::string bases = random_bases(100, random);
  ListedWindows windows(std::make_unique<MemorySource>(Records{{"a", bases}}),
                        {{0, {"a", {{10, 60}, {30, 80}}}}}, "memory");
  io::RecordInfo record;
  ASSERT_TRUE(windows.next_record(record));
  std::vector<char> few(5);
  EXPECT_EQ(windows.read_bases(few), 5);
  ASSERT_TRUE(windows.next_record(record));
  EXPECT_EQ(read_record(windows, 16), bases.substr(30, 50));
}

TEST(ListedWindows, TheShareReadIsThatOfTheWindows) {
  std::mt19937_64 random(9);
  const Records records{{"a", random_bases(100, random)}, {"b", random_bases(100, random)}};
  const WindowList list{{0, {"a", {{10, 60}, {30, 60}}}}, {1, {"b", {{80, 100}}}}};
  EXPECT_EQ(bases_of(list), 100);
  ListedWindows windows(std::make_unique<MemorySource>(records), list, "memory");
  EXPECT_EQ(windows.share_read(), 0);
  io::RecordInfo record;
  std::int64_t read = 0;
  while (windows.next_record(record)) {
    for (std::vector<char> few(7); const std::int64_t count = windows.read_bases(few);) {
      read += count;
      EXPECT_DOUBLE_EQ(windows.share_read(), static_cast<double>(read) / 100);
    }
  }
  EXPECT_EQ(windows.share_read(), 1);
}

TEST(ListedWindows, RecordsOfOneNameAreToldApartByTheirNumber) {
  const Records mates{{"read", "ACGT"}, {"read", "TTTTTTTTTTTT"}, {"read", "GGGGGGGG"}};
  ListedWindows windows(std::make_unique<MemorySource>(mates),
                        {{1, {"read", {{6, 12}}}}, {2, {"read", {{2, 8}}}}}, "memory");
  for (const char* expected : {"TTTTTT", "GGGGGG"}) {
    io::RecordInfo record;
    ASSERT_TRUE(windows.next_record(record));
    EXPECT_EQ(read_record(windows, 5), expected);
  }
  io::RecordInfo record;
  EXPECT_FALSE(windows.next_record(record));
}

TEST(ListedWindows, ARecordOfAnotherNameIsAnErrorThatNamesBoth) {
  ListedWindows windows(std::make_unique<MemorySource>(Records{{"a", "ACGT"}, {"b", "ACGT"}}),
                        {{1, {"a", {{0, 4}}}}}, "memory");
  io::RecordInfo record;
  try {
    windows.next_record(record);
    FAIL() << "no error";
  } catch (const io::InputError& error) {
    EXPECT_NE(std::string(error.what()).find("record 1 is 'b', where the list has 'a'"), std::string::npos)
        << error.what();
  }
}

TEST(ListedWindows, AFileThatLacksAListedRecordIsAnErrorThatNamesIt) {
  ListedWindows windows(std::make_unique<MemorySource>(Records{{"a", "ACGT"}, {"b", "ACGT"}}),
                        {{0, {"a", {{0, 4}}}}, {2, {"c", {{0, 4}}}}, {3, {"d", {}}}}, "memory");
  io::RecordInfo record;
  ASSERT_TRUE(windows.next_record(record));
  read_record(windows, 100);
  try {
    windows.next_record(record);
    FAIL() << "no error";
  } catch (const io::InputError& error) {
    EXPECT_NE(std::string(error.what()).find("ends after 2 records, where the list has record 2, 'c'"),
              std::string::npos)
        << error.what();
  }
}

TEST(ListedWindows, AWindowPastTheEndIsAnErrorThatNamesIt) {
  ListedWindows windows(std::make_unique<MemorySource>(Records{{"a", "ACGTACGT"}}), {{0, {"a", {{4, 12}}}}},
                        "memory");
  io::RecordInfo record;
  ASSERT_TRUE(windows.next_record(record));
  try {
    read_record(windows, 100);
    FAIL() << "no error";
  } catch (const io::InputError& error) {
    EXPECT_NE(std::string(error.what()).find("record 'a' ends at base 8"), std::string::npos) << error.what();
  }
}

TEST(ListedWindows, RefusesAListOutOfOrder) {
  const auto open = [] { return std::make_unique<MemorySource>(Records{}); };
  EXPECT_THROW(ListedWindows(open(), {{0, {"a", {{5, 9}, {0, 4}}}}}, "memory"), std::invalid_argument);
  EXPECT_THROW(ListedWindows(open(), {{0, {"a", {{5, 5}}}}}, "memory"), std::invalid_argument);
}

}  // namespace
}  // namespace longstrand::pipelines
