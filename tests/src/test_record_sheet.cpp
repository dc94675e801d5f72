// Where the tokens of records stand in a sheet.
#include <gtest/gtest.h>

#include "bidirectional_support.hpp"
#include "src/record_sheet.hpp"

namespace longstrand::test {
namespace {

struct SheetCase {
  std::vector<std::int64_t> lengths;
  int strands;
  std::int64_t most_tokens, chunks, chunk_tokens;
  const char* reason;
};

const SheetCase kCases[] = {
    {{10}, 1, 10, 1, 10, "as much as a chunk takes"},
    {{11}, 1, 10, 2, 6, "chunks as equal as can be"},
    {{100, 3, 0, 57}, 1, 40, 10, 10, "records share a chunk"},
    {{100, 3, 0, 57}, 2, 40, 10, 10, "both strands: as many tokens of each record"},
    {{5, 9}, 2, 1, 9, 1, "a token of each record at least"},
    {{0, 0}, 2, 8, 1, 1, "nothing at all"},
};

/// What `view` holds at a position of a lane.
template <class E>
E at(const View<const E, 3>& view, std::int64_t lane, std::int64_t position) {
  return *view.at(position / view.shape[2], lane, position % view.shape[2]);
}

void expect_record(const SheetView& view, std::int64_t lane, const Tokens& tokens, const Tokens& targets) {
  const std::int64_t length = std::ssize(tokens), chunk_tokens = view.tokens.shape[2];
  EXPECT_EQ(view.length.data[lane], length);
  for (std::int64_t p = 0; p < view.tokens.shape[0] * chunk_tokens; ++p) {
    const bool inside = p < length;
    EXPECT_EQ(at(view.tokens, lane, p), inside ? tokens[p] : kPaddingToken) << "position " << p;
    const bool asked = inside && targets[p] != kNoTargetToken;
    EXPECT_EQ(at(view.targets, lane, p), asked ? targets[p] : kNoTarget) << "position " << p;
  }
  for (std::int64_t chunk = 0; chunk < view.tokens.shape[0]; ++chunk) {
    const std::int64_t valid = std::clamp<std::int64_t>(length - chunk * chunk_tokens, 0, chunk_tokens);
    EXPECT_EQ(*view.valid.at(chunk, lane), valid);
    EXPECT_EQ(*view.ends.at(chunk, lane) != 0, valid > 0 && (chunk * chunk_tokens + valid == length));
  }
}

TEST(RecordSheet, HoldsEveryTokenOfBothStrandsHoweverWritten) {
  RecordSheet sheet;  // used again and again
  for (const SheetCase& c : kCases) {
    for (const std::int64_t piece : {1, 7, 1000}) {
      SCOPED_TRACE(concat(c.reason, ", pieces of ", piece));
      std::vector<Tokens> records;
      for (const std::int64_t length : c.lengths) records.push_back(random_dna(length, records.size()));
      const std::vector<Tokens> targets = some_targets(records);
      sheet.start(c.lengths, c.strands, c.most_tokens, /*with_targets=*/true);
      EXPECT_EQ(sheet.chunks(), c.chunks);
      EXPECT_EQ(sheet.chunk_tokens(), c.chunk_tokens);
      EXPECT_EQ(sheet.records(), std::ssize(records));
      for (std::int64_t r = 0; r < sheet.records(); ++r) {
        for (std::int64_t begin = 0; begin < c.lengths[r]; begin += piece) {
          const std::int64_t count = std::min(piece, c.lengths[r] - begin);
          sheet.write(r, begin, std::span(records[r]).subspan(begin, count));
          sheet.write_targets(r, begin, std::span(targets[r]).subspan(begin, count));
        }
      }
      Context context;
      Arena arena;
      const SheetView view = sheet.upload(arena, context);
      for (std::int64_t r = 0; r < sheet.records(); ++r) {
        expect_record(view, r * c.strands, records[r], targets[r]);
        if (c.strands == 1) continue;
        expect_record(view, 2 * r + 1, reverse_complement(records[r]), reverse_complement(targets[r]));
      }
    }
  }
}

}  // namespace
}  // namespace longstrand::test
