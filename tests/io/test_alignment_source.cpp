// Alignments beyond the contract: flags, orientation, regions, references.

#include <gtest/gtest.h>
#include <htslib/faidx.h>
#include <htslib/sam.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "fixtures.hpp"
#include "io/input_error.hpp"
#include "io/packed_bases.hpp"
#include "io/sequence_source.hpp"
#include "support/temporary_directory.hpp"

namespace longstrand::io {
namespace {

using namespace fixtures;

std::vector<std::string> names_of(const std::string& path, const SourceOptions& options = {}) {
  const auto source = open_sequences(path, options);
  std::vector<std::string> names;
  RecordInfo record;
  while (source->next_record(record)) names.push_back(record.name);
  return names;
}

std::string message_for(const std::string& path, const SourceOptions& options) {
  try {
    names_of(path, options);
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

TEST(PackedBases, AreUnpackedFromAnyPositionInEitherDirection) {
  constexpr std::string_view kCodes = "=ACMGRSVTWYHKDBN";
  for (std::int64_t length = 1; length <= 9; ++length) {
    const std::string bases = random_bases(length, static_cast<std::uint64_t>(length), kCodes.substr(1));
    std::vector<std::uint8_t> packed(static_cast<std::size_t>(length + 1) / 2);
    for (std::size_t i = 0; i < bases.size(); ++i) {
      packed[i / 2] |= static_cast<std::uint8_t>(kCodes.find(bases[i]) << (i % 2 == 0 ? 4 : 0));
    }
    const std::string reversed = reverse_complement(bases);
    for (std::int64_t begin = 0; begin < length; ++begin) {
      for (std::int64_t count = 0; begin + count <= length; ++count) {
        const auto at = static_cast<std::size_t>(begin);
        std::string out(static_cast<std::size_t>(count), '?');
        unpack_bases(packed.data(), begin, out);
        ASSERT_EQ(out, bases.substr(at, out.size())) << bases << " from " << begin;
        unpack_reverse_complement(packed.data(), length, begin, out);
        ASSERT_EQ(out, reversed.substr(at, out.size())) << bases << " from " << begin;
      }
    }
  }
}

TEST(AlignmentSource, KeepsToTheFlagsAskedFor) {
  const test::TemporaryDirectory folder;
  write_alignments(folder / "a.bam", "wb", "@HD\tVN:1.6\n",
                   {{"plain", "A", 4},
                    {"secondary", "A", 4 | 0x100},
                    {"qcfail", "A", 4 | 0x200},
                    {"duplicate", "A", 4 | 0x400},
                    {"supplementary", "A", 4 | 0x800}});
  using Names = std::vector<std::string>;
  EXPECT_EQ(names_of(folder / "a.bam"), (Names{"plain", "duplicate"}));
  EXPECT_EQ(names_of(folder / "a.bam", {.exclude_flags = 0}).size(), 5U);
  EXPECT_EQ(names_of(folder / "a.bam", {.exclude_flags = 0x400 | 0x100}),
            (Names{"plain", "qcfail", "supplementary"}));
}

// Mapped reads on one sequence, every 100 bases, and the reference they match.
class MappedReads : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    reference_ = folder_ / "ref.fa";
    write_file(reference_, as_fasta({{"chr1", sequence_}, {"chr2", random_bases(500, 9)}}, 60));
    ASSERT_EQ(fai_build(reference_.c_str()), 0);
    write(header_);
  }

  bool cram() const { return GetParam() == "wc"; }

  void write(const std::string& header) {
    std::vector<Alignment> reads;
    for (std::int64_t position = 0; position + 100 <= 10'000; position += 100) {
      const std::string name = std::string("r").append(std::to_string(position));
      reads.push_back({name, sequence_.substr(static_cast<std::size_t>(position), 100), 0, position});
    }
    write_alignments(path_, GetParam(), header, reads, cram() ? reference_ : "");
  }

  SourceOptions options(const std::vector<std::string>& regions = {}) const {
    return {.reference = cram() ? reference_ : "", .regions = regions};
  }

  test::TemporaryDirectory folder_;
  std::string path_ = folder_ / "reads";
  std::string reference_;
  std::string sequence_ = random_bases(10'000, 7);
  std::string header_ = "@HD\tVN:1.6\tSO:coordinate\n@SQ\tSN:chr1\tLN:10000\n@SQ\tSN:chr2\tLN:500\n";
};

TEST_P(MappedReads, OfRegionsComeOnceInFileOrder) {
  ASSERT_EQ(sam_index_build(path_.c_str(), 0), 0);
  using Names = std::vector<std::string>;
  EXPECT_EQ(names_of(path_, options({"chr1:5001-5100"})), (Names{"r5000"}));
  EXPECT_EQ(names_of(path_, options({"chr1:5100-5101"})), (Names{"r5000", "r5100"}));
  EXPECT_EQ(names_of(path_, options({"chr1:9950", "chr1:101-150", "chr1:140-210"})),
            (Names{"r100", "r200", "r9900"}));
  EXPECT_EQ(names_of(path_, options({"chr1"})).size(), 100U);
  EXPECT_EQ(names_of(path_, options({"chr2"})), Names{});
}

TEST_P(MappedReads, OfRegionsNeedAnIndexAndKnownNames) {
  EXPECT_EQ(message_for(path_, options({"chr1"})),
            path_ + ": has no index; make it with: samtools index " + path_);
  ASSERT_EQ(sam_index_build(path_.c_str(), 0), 0);
  EXPECT_NE(message_for(path_, options({"chr3"})).find("no sequence has this name"), std::string::npos);
  EXPECT_NE(message_for(path_, options({"chr2:501"})).find("which has 500 bases"), std::string::npos);
}

TEST_P(MappedReads, OfRegionsFromAFileWithoutAny) {
  ASSERT_EQ(sam_index_build(path_.c_str(), 0), 0);
  write_file(folder_ / "none.bed", "#nothing\n");
  EXPECT_EQ(message_for(path_, {.reference = options().reference, .regions_file = folder_ / "none.bed"}),
            folder_ / "none.bed" + ": holds no regions");
}

TEST_P(MappedReads, OfRegionsMustNotBeTruncated) {
  ASSERT_EQ(sam_index_build(path_.c_str(), 0), 0);
  const std::string whole = test::content_of(path_);
  write_file(path_, std::string_view(whole).substr(0, whole.size() - 20));
  EXPECT_NE(message_for(path_, options({"chr1:1-100"})).find("truncated"), std::string::npos);
}

TEST_P(MappedReads, CarryTheBasesOfTheReference) {
  const auto source = open_sequences(path_, options());
  RecordInfo record;
  std::string bases(200, '?');
  for (std::size_t position = 0; position < sequence_.size(); position += 100) {
    ASSERT_TRUE(source->next_record(record));
    ASSERT_EQ(record.length, 100);
    ASSERT_EQ(source->read_bases(bases), 100);
    ASSERT_EQ(bases.substr(0, 100), sequence_.substr(position, 100));
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, MappedReads, testing::Values("wb", "wc"),
                         [](const auto& mode) { return mode.param == "wb" ? "bam" : "cram"; });

TEST(SamRegions, AreRefused) {
  const test::TemporaryDirectory folder;
  write_alignments(folder / "a.sam", "w", "@HD\tVN:1.6\n@SQ\tSN:chr1\tLN:100\n", {{"r", "ACGT", 0, 0}});
  EXPECT_NE(message_for(folder / "a.sam", {.regions = {"chr1"}}).find("indexed BAM or CRAM"),
            std::string::npos);
}

// A socket that listens on the loopback, to see whether anybody calls.
class Listener {
 public:
  Listener() : socket_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(bind(socket_, generic, size), 0);
    EXPECT_EQ(listen(socket_, 1), 0);
    EXPECT_EQ(getsockname(socket_, generic, &size), 0);
    port_ = ntohs(address.sin_port);
  }
  ~Listener() { close(socket_); }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }

  bool was_called() const {
    pollfd waiting{socket_, POLLIN, 0};
    return poll(&waiting, 1, 0) > 0;
  }

 private:
  int socket_;
  int port_ = 0;
};

// A relative path that reads like the URL of the listener is a file in a folder "http:".
TEST_P(MappedReads, AreNeverFetchedWhateverThePathLooksLike) {
  const Listener listener;
  const auto previous = std::filesystem::current_path();
  std::filesystem::current_path(folder_ / "");
  std::filesystem::create_directories(listener.url());
  ASSERT_EQ(sam_index_build(path_.c_str(), 0), 0);
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / "")) {
    if (entry.is_regular_file()) std::filesystem::copy(entry.path(), listener.url());
  }
  const std::string path = listener.url() + "/reads";
  const std::string reference = cram() ? listener.url() + "/ref.fa" : "";
  EXPECT_EQ(names_of(path, {.reference = reference, .regions = {"chr1:5001-5100"}}),
            std::vector<std::string>{"r5000"});
  EXPECT_FALSE(listener.was_called());
  std::filesystem::current_path(previous);
}

class CramReference : public MappedReads {};

TEST_P(CramReference, IsNeverLookedUpWhereTheHeaderOrTheEnvironmentSays) {
  const Listener listener;
  setenv("REF_PATH", (listener.url() + "/%s").c_str(), 1);
  write("@HD\tVN:1.6\n@SQ\tSN:chr1\tLN:10000\tM5:0123456789abcdef0123456789abcdef\tUR:" + listener.url() +
        "/ref.fa\n");
  const std::string message = message_for(path_, {});
  EXPECT_NE(message.find("give it with -f"), std::string::npos) << message;
  write("@HD\tVN:1.6\n@SQ\tSN:chr1\tLN:10000\tUR:" + reference_ + "\n");
  EXPECT_NE(message_for(path_, {}).find("give it with -f"), std::string::npos)
      << "a local file is not opened either";
  setenv("REF_PATH", "/nonexistent", 1);
  EXPECT_FALSE(listener.was_called());
}

TEST_P(CramReference, MustBeTheRightOneAndIndexed) {
  write_file(folder_ / "other.fa",
             as_fasta({{"chr1", random_bases(10'000, 8)}, {"chr2", random_bases(500, 9)}}, 60));
  EXPECT_EQ(message_for(path_, {.reference = folder_ / "other.fa"}),
            folder_ / "other.fa" + ": has no index; make it with: samtools faidx " + folder_ / "other.fa");
  ASSERT_EQ(fai_build((folder_ / "other.fa").c_str()), 0);
  EXPECT_NE(message_for(path_, {.reference = folder_ / "other.fa"}).find("another reference"),
            std::string::npos);
  write_file(folder_ / "packed.fa", test::content_of(reference_), Packing::bgzf);
  ASSERT_EQ(fai_build((folder_ / "packed.fa").c_str()), 0);
  std::filesystem::remove(folder_ / "packed.fa.gzi");
  EXPECT_NE(message_for(path_, {.reference = folder_ / "packed.fa"}).find("make it with: samtools faidx"),
            std::string::npos);
  EXPECT_NE(message_for(path_, {.reference = folder_ / "none.fa"}).find("No such file"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Formats, CramReference, testing::Values("wc"));

}  // namespace
}  // namespace longstrand::io
