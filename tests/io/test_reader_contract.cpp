// What every reader must do, whatever the format: one suite, one table of formats.

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <functional>
#include <string>

#include "fixtures.hpp"
#include "io/input_error.hpp"
#include "io/sequence_source.hpp"
#include "leak_suppressions.hpp"
#include "support/temporary_directory.hpp"

namespace longstrand::io {
namespace {

using namespace fixtures;

struct Format {
  std::string name;
  SequenceKind kind;
  bool keeps_case;            // BAM and its relatives know upper case only
  bool shows_its_truncation;  // every proper prefix of the file must be an error
  std::function<void(const std::string& path, const Records& records)> write;
};

Format text_format(const std::string& name, SequenceKind kind, std::size_t width, std::string line_end,
                   Packing packing, std::size_t block_bytes = 0xff00) {
  return {name, kind, true, packing != Packing::plain, [=](const std::string& path, const Records& records) {
            const std::string text = kind == SequenceKind::fasta ? as_fasta(records, width, line_end)
                                                                 : as_fastq(records, width, line_end);
            write_file(path, text, packing, block_bytes);
          }};
}

Format without_final_newline(const std::string& name, SequenceKind kind) {
  return {name, kind, true, false, [=](const std::string& path, const Records& records) {
            std::string text = kind == SequenceKind::fasta ? as_fasta(records) : as_fastq(records);
            text.pop_back();
            write_file(path, text);
          }};
}

Format alignment_format(const std::string& name, SequenceKind kind, const std::string& mode, bool reversed) {
  return {name, kind, false, kind != SequenceKind::sam || mode == "wz",
          [=](const std::string& path, const Records& records) {
            std::vector<Alignment> alignments;
            for (const Record& record : records) {
              if (reversed) {
                alignments.push_back({record.name, reverse_complement(record.bases), 4 | 16});
              } else {
                alignments.push_back({record.name, record.bases, 4});
              }
            }
            write_alignments(path, mode, "@HD\tVN:1.6\n@SQ\tSN:ref\tLN:1000\n", alignments);
          }};
}

const std::vector<Format>& formats() {
  using enum SequenceKind;
  static const std::vector<Format> kFormats = {
      text_format("fasta_one_line", fasta, 0, "\n", Packing::plain),
      text_format("fasta_wrapped", fasta, 7, "\n", Packing::plain),
      text_format("fasta_crlf", fasta, 10, "\r\n", Packing::plain),
      without_final_newline("fasta_no_final_newline", fasta),
      text_format("fasta_gzip", fasta, 60, "\n", Packing::gzip),
      text_format("fasta_bgzf", fasta, 60, "\n", Packing::bgzf),
      // Line ends, marks and CRLF pairs fall on the edges of blocks.
      text_format("fasta_bgzf_blocks_of_3", fasta, 5, "\r\n", Packing::bgzf, 3),
      text_format("fastq_one_line", fastq, 0, "\n", Packing::plain),
      text_format("fastq_wrapped", fastq, 7, "\n", Packing::plain),
      text_format("fastq_crlf", fastq, 0, "\r\n", Packing::plain),
      without_final_newline("fastq_no_final_newline", fastq),
      text_format("fastq_gzip", fastq, 0, "\n", Packing::gzip),
      text_format("fastq_bgzf_blocks_of_3", fastq, 5, "\r\n", Packing::bgzf, 3),
      alignment_format("sam", sam, "w", false),
      alignment_format("sam_bgzf", sam, "wz", false),
      alignment_format("bam", bam, "wb", false),
      alignment_format("bam_reversed", bam, "wb", true),
      alignment_format("cram", cram, "wc", false),
      alignment_format("cram_reversed", cram, "wc", true),
  };
  return kFormats;
}

std::string upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::toupper(c); });
  return text;
}

class ReaderContract : public testing::TestWithParam<Format> {
 protected:
  // Writes records to a file of the format under test.
  std::string write(const Records& records) {
    const std::string path = folder_ / "sequences";
    Records stored = records;
    if (!GetParam().keeps_case) {
      for (Record& record : stored) record.bases = upper(record.bases);
    }
    GetParam().write(path, stored);
    return path;
  }

  Records expected(Records records) const {
    if (!GetParam().keeps_case) {
      for (Record& record : records) record.bases = upper(record.bases);
    }
    return records;
  }

  test::TemporaryDirectory folder_;
};

const Records kRecords = {
    {"first", "ACGTACGTACGTTTGA"}, {"one", "C"},         {"lower", "acgtnNACGT"},
    {"iupac", "RYSWKMBDHVN"},      {"even", "AACCGGTT"}, {"last", "TTTTTTTGGGGGGGCCCCCCCAAAAAAA"},
};

TEST_P(ReaderContract, DeliversRecordsInPiecesOfAnySize) {
  const std::string path = write(kRecords);
  for (const std::size_t piece : {1, 7, 13, 64, 1 << 20}) {
    for (const int threads : {0, 1}) {
      EXPECT_EQ(read_all(path, piece, threads), expected(kRecords))
          << "in pieces of " << piece << ", " << threads << " threads more";
    }
  }
}

TEST_P(ReaderContract, RecognisesTheFormatByContent) {
  EXPECT_EQ(open_sequences(write(kRecords))->kind(), GetParam().kind);
}

TEST_P(ReaderContract, FillsThePieceUnlessTheRecordEnds) {
  const auto source = open_sequences(write(kRecords));
  RecordInfo record;
  ASSERT_TRUE(source->next_record(record));
  std::vector<char> piece(10);
  EXPECT_EQ(source->read_bases(piece), 10);
  EXPECT_EQ(source->read_bases(piece), 6);
  EXPECT_EQ(source->read_bases(piece), 0);
  EXPECT_EQ(source->read_bases(piece), 0) << "the end of a record stays";
}

TEST_P(ReaderContract, SkipsWhatIsLeftOfARecord) {
  const auto source = open_sequences(write(kRecords));
  RecordInfo record;
  std::vector<std::string> names;
  std::vector<char> piece(3);
  while (source->next_record(record)) {
    names.push_back(record.name);
    if (names.size() % 2 == 0) source->read_bases(piece);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"first", "one", "lower", "iupac", "even", "last"}));
  EXPECT_FALSE(source->next_record(record)) << "the end of a file stays";
  EXPECT_EQ(source->read_bases(piece), 0) << "after the last record there are no bases";
}

TEST_P(ReaderContract, HasNoBasesBeforeTheFirstRecord) {
  std::vector<char> piece(3);
  EXPECT_EQ(open_sequences(write(kRecords))->read_bases(piece), 0);
}

TEST_P(ReaderContract, DeliversEmptyRecords) {
  const Records records = {{"empty", ""}, {"some", "ACGT"}, {"middle", ""}, {"more", "GG"}, {"end", ""}};
  EXPECT_EQ(read_all(write(records)), records);
}

TEST_P(ReaderContract, StatesKnownLengthsRightly) {
  const auto source = open_sequences(write(kRecords));
  RecordInfo record;
  for (const Record& wanted : kRecords) {
    ASSERT_TRUE(source->next_record(record));
    EXPECT_TRUE(record.length == -1 || record.length == std::ssize(wanted.bases)) << record.length;
    EXPECT_EQ(record.begin, 0);
    EXPECT_EQ(record.strand, '+');
  }
}

TEST_P(ReaderContract, ReadsRecordsLargerThanEveryBuffer) {
  const Records records = {
      {"large", random_bases(300'001, 1)}, {"small", "ACGT"}, {"again", random_bases(70'000, 2)}};
  const std::string path = write(records);
  for (const int threads : {0, 1}) EXPECT_EQ(read_all(path, 4099, threads), records);
}

// What a truncated file still gives must be the beginning of the whole one's records.
void expect_beginning_of(const Records& all, const Records& found) {
  ASSERT_LE(found.size(), all.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    ASSERT_TRUE(all[i].bases.starts_with(found[i].bases));
    if (i + 1 < found.size()) {
      ASSERT_EQ(found[i], all[i]);
    }
  }
}

// A prefix of the file is an error wherever the format can show it, and never invents a base.
TEST_P(ReaderContract, IsNeverFooledByATruncatedFile) {
  fixtures::htslib_threads_leak = true;
  const std::string whole = test::content_of(write(kRecords));
  const Records all = expected(kRecords);
  const std::string path = folder_ / "truncated";
  for (std::size_t size = 0; size < whole.size(); ++size) {
    write_file(path, std::string_view(whole).substr(0, size));
    for (const int threads : {0, 1}) {
      SCOPED_TRACE(testing::Message()
                   << size << " of " << whole.size() << " bytes, " << threads << " threads more");
      try {
        const Records found = read_all(path, 5, threads);
        ASSERT_FALSE(GetParam().shows_its_truncation) << "nothing noticed";
        expect_beginning_of(all, found);
      } catch (const InputError& error) {
        ASSERT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
        ASSERT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, ReaderContract, testing::ValuesIn(formats()),
                         [](const auto& format) { return format.param.name; });

}  // namespace
}  // namespace longstrand::io
