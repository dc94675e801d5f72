#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "fixtures.hpp"
#include "io/chunk_stream.hpp"
#include "io/input_error.hpp"
#include "support/temporary_directory.hpp"

namespace longstrand::io {
namespace {

using namespace fixtures;

// What came out of a stream, put together again, by record index.
struct Reassembled {
  RecordInfo info;
  std::int64_t file_index = -1;
  std::string bases;
  std::string soft_mask;
  bool ended = false;
};
using Reassembly = std::map<std::int64_t, Reassembled>;

// Checks one lane of a chunk against what that lane held before, and appends its tokens to their record.
void take_lane(const TokenChunk& chunk, std::size_t b, std::int64_t& current, Reassembly& records) {
  const std::int64_t index = chunk.record_index[b];
  const std::int64_t valid = chunk.valid[b];
  const auto row = static_cast<std::size_t>(chunk.length) * b;
  for (auto t = static_cast<std::size_t>(valid); t < static_cast<std::size_t>(chunk.length); ++t) {
    ASSERT_EQ(chunk.tokens[row + t], kPad);
    ASSERT_EQ(chunk.soft_mask[row + t], 0);
  }
  if (index < 0) {
    ASSERT_EQ(std::tuple(chunk.valid[b], chunk.starts[b], chunk.ends[b], chunk.file_index[b]),
              std::tuple(0, 0, 0, -1));
    ASSERT_EQ(current, -1) << "a lane lost its record";
    return;
  }
  ASSERT_EQ(chunk.starts[b] != 0, current == -1);
  if (chunk.starts[b]) {
    ASSERT_EQ(records.count(index), 0U) << "a record came twice";
    records[index].file_index = chunk.file_index[b];
  } else {
    ASSERT_EQ(index, current);
  }
  Reassembled& record = records[index];
  ASSERT_EQ(chunk.offset[b], std::ssize(record.bases));
  record.info = chunk.records[b];
  const auto tokens = std::span(chunk.tokens).subspan(row, static_cast<std::size_t>(valid));
  record.bases += Alphabet::bases(tokens);
  for (std::size_t t = 0; t < tokens.size(); ++t) record.soft_mask += chunk.soft_mask[row + t] ? '1' : '0';
  record.ended = chunk.ends[b] != 0;
  if (!record.ended) {
    ASSERT_EQ(valid, chunk.length) << "only the last chunk of a record may be short";
  }
  current = record.ended ? -1 : index;
}

Reassembly reassemble(ChunkStream& stream) {
  Reassembly records;
  std::vector<std::int64_t> current;  // the record of each lane
  TokenChunk chunk;
  while (stream.next(chunk)) {
    current.resize(static_cast<std::size_t>(chunk.lanes), -1);
    const bool any =
        std::any_of(chunk.record_index.begin(), chunk.record_index.end(), [](auto i) { return i >= 0; });
    EXPECT_TRUE(any) << "an empty chunk";
    for (std::size_t b = 0; b < current.size(); ++b) take_lane(chunk, b, current[b], records);
    if (testing::Test::HasFatalFailure()) break;
  }
  for (const auto& [index, record] : records) {
    EXPECT_TRUE(record.ended) << index;
    EXPECT_EQ(record.info.length, std::ssize(record.bases)) << index;
  }
  return records;
}

Records without_case(Records records) {
  for (Record& record : records) {
    std::transform(record.bases.begin(), record.bases.end(), record.bases.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  }
  return records;
}

Records in_order(const Reassembly& reassembly) {
  Records records;
  for (const auto& [index, record] : reassembly) {
    EXPECT_EQ(index, std::ssize(records)) << "a record is missing";
    records.push_back({record.info.name, record.bases});
  }
  return records;
}

Records twice(const Records& records) {
  Records both = records;
  both.insert(both.end(), records.begin(), records.end());
  return both;
}

class ChunkStreamTest : public testing::Test {
 protected:
  std::string write(const std::string& name, const Records& records) {
    write_file(folder_ / name, as_fasta(records, 61));
    return folder_ / name;
  }

  Reassembly stream(const std::vector<std::string>& paths, const ChunkStreamOptions& options) {
    ChunkStream chunks(paths, {}, options);
    return reassemble(chunks);
  }

  test::TemporaryDirectory folder_;
};

const Records kShort = {
    {"a", "ACGTNacgtn"}, {"b", ""},    {"c", "G"},       {"d", "GGGGGGGGGGGGGGGGGGGGGGGGG"},
    {"e", "tttttttt"},   {"f", "CCC"}, {"g", "ACACACA"}, {"h", ""}};

TEST_F(ChunkStreamTest, BundlesWholeRecordsInOrder) {
  const std::string path = write("a.fa", kShort);
  for (const std::int64_t bundle : {2, 3, 8, 20}) {
    for (const std::int64_t length : {1, 2, 3, 7, 8, 10, 25, 26, 1000}) {
      const ChunkStreamOptions options{.chunk_tokens = length, .bundle = bundle};
      EXPECT_EQ(in_order(stream({path, path}, options)), without_case(twice(kShort)))
          << bundle << " records, " << length << " tokens";
      ChunkStream chunks({path, path}, {}, options);
      std::int64_t last = -1;
      for (TokenChunk chunk; chunks.next(chunk);) {
        ASSERT_LE(chunk.lanes, bundle);
        ASSERT_LE(chunk.lanes * chunk.length, std::max<std::int64_t>(length, chunk.lanes));
        for (std::size_t b = 0; b < chunk.valid.size(); ++b) {
          ASSERT_GE(chunk.record_index[b], last) << "records out of order";
          last = chunk.record_index[b];
          if (chunk.lanes > 1) {
            ASSERT_TRUE(chunk.starts[b] && chunk.ends[b]) << "a record was cut in a bundle";
          }
        }
      }
    }
  }
}

TEST_F(ChunkStreamTest, BundlesWindowsAndSkipsRecords) {
  const std::string path = write("a.fa", kShort);
  const ChunkStreamOptions one_by_one{.chunk_tokens = 12, .window = 6, .stride = 4, .skip_records = 3};
  ChunkStreamOptions bundled = one_by_one;
  bundled.bundle = 5;
  const Reassembly expected = stream({path}, one_by_one);
  const Reassembly got = stream({path}, bundled);
  ASSERT_EQ(got.size(), expected.size());
  for (const auto& [index, record] : expected) {
    EXPECT_EQ(got.at(index).bases, record.bases);
    EXPECT_EQ(got.at(index).soft_mask, record.soft_mask);
    EXPECT_EQ(got.at(index).info.begin, record.info.begin);
  }
}

TEST_F(ChunkStreamTest, ReassemblesForAnyShape) {
  const std::string path = write("a.fa", kShort);
  for (const std::int64_t lanes : {1, 2, 3, 8, 20}) {
    for (const std::int64_t length : {1, 2, 5, 7, 8, 10, 25, 1000}) {
      const Reassembly records = stream({path}, {.lanes = lanes, .chunk_tokens = length});
      ASSERT_EQ(in_order(records), without_case(kShort)) << lanes << " lanes of " << length;
      ASSERT_EQ(records.at(0).soft_mask, "0000011111");
    }
  }
}

// Longer than a lane's buffer, so that they stream; between them short ones, which wait for their turn.
TEST_F(ChunkStreamTest, StreamsLongRecordsBesideShortOnes) {
  const Records records = {{"long", random_bases(3 * kLaneBufferTokens + 17, 1)},
                           {"short", "ACGT"},
                           {"exactly", random_bases(kLaneBufferTokens, 2)},
                           {"longer", random_bases(5 * kLaneBufferTokens, 3)},
                           {"empty", ""},
                           {"one_more", random_bases(kLaneBufferTokens + 1, 4)},
                           {"last", "TT"}};
  const std::string path = write("a.fa", records);
  const std::string more = write("b.fa", {{"x", "ACG"}});
  Records wanted = records;
  wanted.push_back({"x", "ACG"});
  for (const std::int64_t lanes : {1, 2, 4}) {
    for (const std::int64_t length : {std::int64_t{1000}, kLaneBufferTokens, kLaneBufferTokens + 1}) {
      const Reassembly result = stream({path, more}, {.lanes = lanes, .chunk_tokens = length});
      ASSERT_TRUE(in_order(result) == wanted) << lanes << " lanes of " << length;
      ASSERT_EQ(result.at(6).file_index, 0);
      ASSERT_EQ(result.at(7).file_index, 1);
    }
  }
}

TEST_F(ChunkStreamTest, OtherLanesIdleWhileALongRecordStreams) {
  const std::string path =
      write("a.fa", {{"x", random_bases(4 * kLaneBufferTokens, 1)}, {"y", "ACGT"}, {"z", "GG"}});
  ChunkStream chunks({path}, {}, {.lanes = 2, .chunk_tokens = 4096});
  TokenChunk chunk;
  Reassembly records;
  std::vector<std::int64_t> current = {-1, -1};
  while (chunks.next(chunk)) {
    // Within a buffer of its end the record may all be read, which frees the reader.
    if (chunk.record_index[0] == 0 && chunk.offset[0] < 3 * kLaneBufferTokens - 4096) {
      ASSERT_EQ(chunk.record_index[1], -1);
    }
    for (std::size_t b = 0; b < 2; ++b) take_lane(chunk, b, current[b], records);
  }
  EXPECT_EQ(std::ssize(records.at(0).bases), 4 * kLaneBufferTokens);
  EXPECT_EQ(records.at(1).bases, "ACGT");
  EXPECT_EQ(records.at(2).bases, "GG");
}

// As from a pipe.
TEST_F(ChunkStreamTest, OpensAnInputOnce) {
  const Records records = {{"x", random_bases(3 * kLaneBufferTokens, 1)},
                           {"y", "ACGT"},
                           {"z", random_bases(2 * kLaneBufferTokens, 2)}};
  const std::string path = write("a.fa", records);
  int openings = 0;
  const ChunkInput input{path, [&] { return ++openings, open_sequences(path); }};
  ChunkStream chunks({input}, {.lanes = 3, .chunk_tokens = 1000});
  EXPECT_TRUE(in_order(reassemble(chunks)) == records);
  EXPECT_EQ(openings, 1);
}

TEST_F(ChunkStreamTest, IsTheSameEveryTime) {
  Records records;
  for (std::uint64_t i = 0; i < 200; ++i) {
    records.push_back({std::string("r").append(std::to_string(i)),
                       random_bases(static_cast<std::int64_t>(i * 37 % 301), i)});
  }
  const std::string path = write("a.fa", records);
  const ChunkStreamOptions options = {.lanes = 5, .chunk_tokens = 64};
  ChunkStream first({path}, {}, options);
  ChunkStream second({path}, {}, options);
  TokenChunk a;
  TokenChunk b;
  while (first.next(a)) {
    ASSERT_TRUE(second.next(b));
    ASSERT_EQ(a.tokens, b.tokens);
    ASSERT_EQ(a.record_index, b.record_index);
    ASSERT_EQ(a.offset, b.offset);
  }
  EXPECT_FALSE(second.next(b));
  EXPECT_FALSE(second.next(b)) << "the end stays";
}

TEST_F(ChunkStreamTest, NumbersRecordsOverAllFiles) {
  const Reassembly records = stream({write("a.fa", {{"a", "A"}, {"b", "C"}}), write("b.fa", {{"c", "G"}})},
                                    {.lanes = 2, .chunk_tokens = 4});
  EXPECT_EQ(in_order(records), (Records{{"a", "A"}, {"b", "C"}, {"c", "G"}}));
  EXPECT_EQ(records.at(1).file_index, 0);
  EXPECT_EQ(records.at(2).file_index, 1);
}

TEST_F(ChunkStreamTest, SkipsRecordsAndKeepsTheirNumbers) {
  const std::string path = write("a.fa", kShort);
  const Reassembly records = stream({path}, {.lanes = 2, .chunk_tokens = 4, .skip_records = 5});
  ASSERT_EQ(records.size(), 3U);
  EXPECT_EQ(records.at(5).info.name, "f");
  EXPECT_TRUE(stream({path}, {.skip_records = 100}).empty());
}

struct WindowCase {
  std::int64_t window;
  std::int64_t stride;
  std::int64_t min_window;
};

class ChunkStreamWindows : public ChunkStreamTest, public testing::WithParamInterface<WindowCase> {};

// Against the definition: windows at 0, stride, 2 stride, ... until one reaches the end.
TEST_P(ChunkStreamWindows, AreThoseOfTheDefinition) {
  const auto [window, stride, min_window] = GetParam();
  Records records;
  for (std::int64_t length = 0; length <= 45; ++length) {
    records.push_back({std::string("r").append(std::to_string(length)),
                       random_bases(length, static_cast<std::uint64_t>(length))});
  }
  Records wanted;
  const std::int64_t step = stride == 0 ? window : stride;
  for (const Record& record : records) {
    for (std::int64_t begin = 0; begin == 0 || begin < std::ssize(record.bases); begin += step) {
      const std::string bases =
          record.bases.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(window));
      if (std::ssize(bases) >= min_window)
        wanted.push_back({record.name + "@" + std::to_string(begin), bases});
      if (begin + window >= std::ssize(record.bases)) break;
    }
  }
  const std::string path = write("a.fa", records);
  for (const std::int64_t lanes : {1, 3}) {
    Reassembly result = stream(
        {path},
        {.lanes = lanes, .chunk_tokens = 4, .window = window, .stride = stride, .min_window = min_window});
    for (auto& [index, record] : result) record.info.name += "@" + std::to_string(record.info.begin);
    ASSERT_EQ(in_order(result), wanted);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, ChunkStreamWindows,
                         testing::Values(WindowCase{10, 0, 1}, WindowCase{10, 10, 10}, WindowCase{10, 5, 1},
                                         WindowCase{10, 3, 4}, WindowCase{10, 1, 1}, WindowCase{10, 15, 1},
                                         WindowCase{10, 25, 3}, WindowCase{1, 1, 1}, WindowCase{7, 0, 0},
                                         WindowCase{100, 0, 1}, WindowCase{100, 0, 20},
                                         WindowCase{1'000'000'000'000'000, 0, 1},
                                         WindowCase{10, 1'000'000'000'000'000, 1}));

TEST_F(ChunkStreamTest, HoldsWindowsLongerThanALaneBuffer) {
  const Record record = {"x", random_bases(2 * kLaneBufferTokens + 99, 1)};
  const std::int64_t window = kLaneBufferTokens + 50;
  const Reassembly records =
      stream({write("a.fa", {record})},
             {.lanes = 2, .chunk_tokens = 10'000, .window = window, .stride = window - 1});
  ASSERT_EQ(records.size(), 2U);
  EXPECT_TRUE(records.at(0).bases == record.bases.substr(0, static_cast<std::size_t>(window)));
  EXPECT_TRUE(records.at(1).bases == record.bases.substr(static_cast<std::size_t>(window - 1)));
  EXPECT_EQ(records.at(1).info.begin, window - 1);
}

TEST_F(ChunkStreamTest, ThrowsAfterTheChunksBeforeTheError) {
  const std::string good = write("good.fa", {{"a", "ACGTA"}});
  write_file(folder_ / "bad.fa", ">b some text\nACGTACGT\nACGTJCGT\n");
  ChunkStream chunks({good, folder_ / "bad.fa"}, {}, {.chunk_tokens = 2});
  TokenChunk chunk;
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(chunks.next(chunk));
  for (int again = 0; again < 2; ++again) {
    try {
      chunks.next(chunk);
      FAIL() << "no error";
    } catch (const InputError& error) {
      EXPECT_EQ(std::string(error.what()),
                folder_ / "bad.fa" + ": record 'b', position 13: 'J' is not a nucleotide code");
    }
  }
}

TEST_F(ChunkStreamTest, NamesPositionsInTheNamedSequence) {
  write_file(folder_ / "a.fa", ">b\nACGTACGT\nACGTRCGT\n");
  ChunkStream windows({folder_ / "a.fa"}, {}, {.ambiguous = Ambiguous::error, .window = 5});
  TokenChunk chunk;
  try {
    while (windows.next(chunk)) continue;
    FAIL() << "no error";
  } catch (const InputError& error) {
    EXPECT_EQ(std::string(error.what()),
              folder_ / "a.fa" + ": record 'b', position 13: 'R' is not one of A C G T U N");
  }
}

TEST_F(ChunkStreamTest, ThrowsForAFileThatIsMissing) {
  ChunkStream chunks({"/nonexistent"}, {}, {});
  TokenChunk chunk;
  EXPECT_THROW(chunks.next(chunk), InputError);
}

// Counts how many bases were asked for; ends after many records, or never.
class EndlessSource final : public SequenceSource {
 public:
  explicit EndlessSource(std::atomic<std::int64_t>& delivered) : delivered_(delivered) {}
  bool next_record(RecordInfo& record) override { return record.name = "endless", true; }
  std::int64_t read_bases(std::span<char> out) override {
    std::fill(out.begin(), out.end(), 'A');
    delivered_ += std::ssize(out);
    return std::ssize(out);
  }
  SequenceKind kind() const override { return SequenceKind::fasta; }

 private:
  std::atomic<std::int64_t>& delivered_;
};

TEST(ChunkStreamThread, RunsAheadByABoundedAmountAndStopsWhenDestroyed) {
  std::atomic<std::int64_t> delivered = 0;
  const ChunkInput input{"endless", [&] { return std::make_unique<EndlessSource>(delivered); }};
  constexpr std::int64_t kChunk = 1000;
  constexpr std::int64_t kQueue = 3;
  {
    ChunkStream chunks({input}, {.chunk_tokens = kChunk, .queue_chunks = kQueue});
    TokenChunk chunk;
    ASSERT_TRUE(chunks.next(chunk));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_LE(delivered, 2 * kLaneBufferTokens + (kQueue + 2) * kChunk);
  }
  const std::int64_t at_end = delivered;
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(delivered, at_end);
}

TEST(ChunkStreamThread, StopsWithoutAnyCall) {
  std::atomic<std::int64_t> delivered = 0;
  const ChunkInput input{"endless", [&] { return std::make_unique<EndlessSource>(delivered); }};
  for (int i = 0; i < 20; ++i) ChunkStream({input}, {.lanes = 1, .chunk_tokens = 10});
}

TEST(ChunkStreamOptionsTest, AreChecked) {
  const std::vector<std::string> none;
  EXPECT_THROW(ChunkStream(none, {}, {.lanes = 0}), std::invalid_argument);
  EXPECT_THROW(ChunkStream(none, {}, {.chunk_tokens = 0}), std::invalid_argument);
  EXPECT_THROW(ChunkStream(none, {}, {.queue_chunks = 0}), std::invalid_argument);
  EXPECT_THROW(ChunkStream(none, {}, {.window = -1}), std::invalid_argument);
  EXPECT_THROW(ChunkStream(none, {}, {.stride = 5}), std::invalid_argument);
  EXPECT_THROW(ChunkStream(none, {}, {.skip_records = -1}), std::invalid_argument);
  TokenChunk chunk;
  EXPECT_FALSE(ChunkStream(none, {}, {}).next(chunk)) << "no files, no chunks";
}

}  // namespace
}  // namespace longstrand::io
