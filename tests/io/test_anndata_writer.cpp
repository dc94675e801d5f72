#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <random>

#include "io/anndata_writer.hpp"
#include "io/embedding_rows.hpp"
#include "io/file_descriptor.hpp"
#include "support/child_process.hpp"
#include "support/temporary_directory.hpp"

namespace longstrand::io {
namespace {

namespace fs = std::filesystem;
using test::append_until;
using test::content_of;
using test::embedding_settings;
using test::error_of;
using test::fork_child;
using test::limit_file_size;
using test::wait_for;
using Start = AnnDataWriter::Start;

void write_whole(const std::string& path, RowKind kind, std::int64_t n_obs, std::int64_t n_var,
                 std::int64_t batch = 17) {
  AnnDataWriter writer(path, embedding_settings(kind, n_var), Start::kFresh);
  append_until(writer, kind, n_obs, n_var, batch);
  writer.finish();
}

int run_python_check(const std::string& path, const char* kind, std::int64_t n_obs, std::int64_t n_var) {
  const std::string script = LONGSTRAND_TESTS "/io/check_anndata.py";
  const auto command = std::string(LONGSTRAND_PYTHON) + " '" + script + "' '" + path + "' " + kind + " " +
                       std::to_string(n_obs) + " " + std::to_string(n_var);
  return WEXITSTATUS(std::system(command.c_str()));
}

struct Shape {
  RowKind kind;
  std::int64_t n_obs;
  std::int64_t n_var;
  std::int64_t batch;
  const char* why;
};

const Shape kShapes[] = {
    {RowKind::kPooled, 0, 5, 1, "no rows: X has no place in the file"},
    {RowKind::kPooled, 1, 1, 1, "the smallest"},
    {RowKind::kPooled, 2500, 37, 13, "several records, a batch that fits nothing"},
    {RowKind::kPooled, 40000, 3, 1000, "more rows than a column buffers"},
    {RowKind::kTokens, 0, 5, 1, "no tokens"},
    {RowKind::kTokens, 2500, 64, 333, "runs of tokens"},
    {RowKind::kTokens, 40000, 2, 1000, "more tokens than a column buffers"},
};

TEST(AnnDataWriter, FilesOpenInH5pyAndAnndata) {
  for (const auto& shape : kShapes) {
    SCOPED_TRACE(shape.why);
    const test::TemporaryDirectory directory;
    const auto path = directory / "out.h5ad";
    write_whole(path, shape.kind, shape.n_obs, shape.n_var, shape.batch);
    const auto* kind = shape.kind == RowKind::kPooled ? "pooled" : "tokens";
    const int status = run_python_check(path, kind, shape.n_obs, shape.n_var);
    if (status == 77) {
      GTEST_SKIP() << "h5py or anndata is not installed for " LONGSTRAND_PYTHON;
    }
    EXPECT_EQ(status, 0);
    EXPECT_EQ(std::distance(fs::directory_iterator(fs::path(path).parent_path()), {}), 1)
        << "files left behind";
  }
}

TEST(AnnDataWriter, BatchesDoNotChangeTheFile) {
  const test::TemporaryDirectory directory;
  for (const auto kind : {RowKind::kPooled, RowKind::kTokens}) {
    write_whole(directory / "one.h5ad", kind, 3000, 8, 1);
    write_whole(directory / "many.h5ad", kind, 3000, 8, 1000);
    EXPECT_EQ(content_of(directory / "one.h5ad"), content_of(directory / "many.h5ad"));
  }
}

TEST(AnnDataWriter, NothingUnderTheFinalNameBeforeFinish) {
  const test::TemporaryDirectory directory;
  AnnDataWriter writer(directory / "out.h5ad", embedding_settings(RowKind::kPooled, 4), Start::kFresh);
  append_until(writer, RowKind::kPooled, 100, 4, 10);
  writer.flush();
  EXPECT_FALSE(fs::exists(directory / "out.h5ad"));
}

TEST(AnnDataWriter, FinishReplacesAnOlderFile) {
  const test::TemporaryDirectory directory;
  write_whole(directory / "out.h5ad", RowKind::kPooled, 10, 4);
  write_whole(directory / "out.h5ad", RowKind::kPooled, 20, 4);
  write_whole(directory / "expected.h5ad", RowKind::kPooled, 20, 4);
  EXPECT_EQ(content_of(directory / "out.h5ad"), content_of(directory / "expected.h5ad"));
}

TEST(AnnDataWriter, RefusesAPipe) {
  const test::TemporaryDirectory directory;
  ASSERT_EQ(::mkfifo((directory / "pipe").c_str(), 0600), 0);
  EXPECT_THROW(write_whole(directory / "pipe", RowKind::kPooled, 10, 4), std::runtime_error);
  EXPECT_TRUE(fs::is_fifo(directory / "pipe"));
}

TEST(AnnDataWriter, ResumesAfterTheLastCompleteRow) {
  const test::TemporaryDirectory directory;
  write_whole(directory / "expected.h5ad", RowKind::kPooled, 2000, 8);
  for (const std::int64_t stop : {0, 1, 999, 1000, 2000}) {
    {
      AnnDataWriter writer(directory / "out.h5ad", embedding_settings(RowKind::kPooled, 8), Start::kFresh);
      append_until(writer, RowKind::kPooled, stop, 8, 50);
    }
    AnnDataWriter writer(directory / "out.h5ad", embedding_settings(RowKind::kPooled, 8), Start::kResume);
    EXPECT_EQ(writer.rows(), stop);
    append_until(writer, RowKind::kPooled, 2000, 8, 50);
    writer.finish();
    EXPECT_EQ(content_of(directory / "out.h5ad"), content_of(directory / "expected.h5ad"));
  }
}

// What a power failure can leave: the journal is there, the rows it speaks of are not, or are wrong; or a
// torn end.
TEST(AnnDataWriter, DamagedEndsAreCutOffAtResume) {
  const test::TemporaryDirectory directory;
  const auto path = directory / "out.h5ad";
  const auto partial = path + ".partial";
  const auto journal = partial + ".obs";
  const auto settings = embedding_settings(RowKind::kPooled, 8);
  const struct {
    const char* what;
    std::function<void()> damage;
    std::int64_t rows_left;
  } cases[] = {
      {"last value lost", [&] { fs::resize_file(partial, fs::file_size(partial) - 4); }, 90},
      {"all values lost", [&] { fs::resize_file(partial, 0); }, 0},
      {"journal torn", [&] { fs::resize_file(journal, fs::file_size(journal) - 1); }, 90},
      {"journal longer by zeros", [&] { fs::resize_file(journal, fs::file_size(journal) + 4096); }, 100},
      {"journal lost", [&] { fs::resize_file(journal, 0); }, 0},
      {"values of the second block overwritten",
       [&] {
         FileDescriptor file(partial, O_RDWR);
         file.write_at(std::as_bytes(std::span("????")), file.size() - 90 * 8 * 4 + 100);
       },
       10},
  };
  for (const auto& damage_case : cases) {
    SCOPED_TRACE(damage_case.what);
    {
      AnnDataWriter writer(path, settings, Start::kFresh);
      append_until(writer, RowKind::kPooled, 100, 8, 10);
    }
    damage_case.damage();
    AnnDataWriter writer(path, settings, Start::kResume);
    EXPECT_EQ(writer.rows(), damage_case.rows_left);
    append_until(writer, RowKind::kPooled, 100, 8, 10);
    writer.finish();
    write_whole(directory / "expected.h5ad", RowKind::kPooled, 100, 8);
    EXPECT_EQ(content_of(path), content_of(directory / "expected.h5ad"));
  }
}

TEST(AnnDataWriter, RefusesToResumeOtherSettings) {
  const test::TemporaryDirectory directory;
  const auto path = directory / "out.h5ad";
  const auto settings = embedding_settings(RowKind::kPooled, 8);
  {
    AnnDataWriter writer(path, settings, Start::kFresh);
    append_until(writer, RowKind::kPooled, 10, 8, 10);
  }
  auto other_fingerprint = settings;
  other_fingerprint.fingerprint = "model=abc pool=last";
  auto other_width = settings;
  other_width.n_var = 9;
  auto other_kind = settings;
  other_kind.rows = RowKind::kTokens;
  for (const auto& other : {other_fingerprint, other_width, other_kind}) {
    const auto message = error_of([&] { AnnDataWriter(path, other, Start::kResume); });
    EXPECT_NE(message.find("other settings"), std::string::npos) << message;
    EXPECT_NE(message.find(path), std::string::npos) << message;
  }
  EXPECT_EQ(AnnDataWriter(path, settings, Start::kResume).rows(), 10) << "a refusal must not cost the rows";
}

TEST(AnnDataWriter, RefusesAFileThatAnotherProcessWrites) {
  const test::TemporaryDirectory directory;
  const auto settings = embedding_settings(RowKind::kPooled, 8);
  AnnDataWriter writer(directory / "out.h5ad", settings, Start::kFresh);
  append_until(writer, RowKind::kPooled, 10, 8, 10);
  for (const auto start : {Start::kFresh, Start::kResume}) {
    const auto message = error_of([&] { AnnDataWriter(directory / "out.h5ad", settings, start); });
    EXPECT_NE(message.find("in use by another process"), std::string::npos) << message;
  }
  writer.finish();
  write_whole(directory / "expected.h5ad", RowKind::kPooled, 10, 8);
  EXPECT_EQ(content_of(directory / "out.h5ad"), content_of(directory / "expected.h5ad"));
}

TEST(AnnDataWriter, NamesAreUniqueAndUtf8) {
  const test::TemporaryDirectory directory;
  AnnDataWriter writer(directory / "out.h5ad", {.n_var = 1, .fingerprint = "", .uns = {}}, Start::kFresh);
  const ObsRow mate{.record = "read", .start = 0, .end = 5, .length = 5};
  const ObsRow latin1{.record = "\xE9toile", .start = 0, .end = 5, .length = 5};
  const std::vector<float> values(4);
  writer.append(std::vector{mate, mate, latin1, mate}, values);
  writer.finish();
  const auto command = std::string(LONGSTRAND_PYTHON) +
                       " -c \"import sys, h5py; print('imported'); names = " + "list(h5py.File('" +
                       (directory / "out.h5ad") + "')['obs/_index'].asstr()[:]); " +
                       "sys.exit(names != ['read:1-5', 'read:1-5-1', '\u00e9toile:1-5', 'read:1-5-3'])\" > " +
                       (directory / "log") + " 2>&1";
  const int status = std::system(command.c_str());
  if (content_of(directory / "log").find("ModuleNotFoundError") != std::string::npos) {
    GTEST_SKIP() << "h5py is not installed for " LONGSTRAND_PYTHON;
  }
  EXPECT_EQ(status, 0) << content_of(directory / "log");
}

TEST(AnnDataWriter, KilledAtAnyMomentAndResumedGivesTheSameFile) {
  const test::TemporaryDirectory directory;
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  constexpr std::int64_t kRows = 30000;
  constexpr std::int64_t kWidth = 16;
  for (const auto kind : {RowKind::kPooled, RowKind::kTokens}) {
    const auto path = directory / "out.h5ad";
    fs::remove(path);
    write_whole(directory / "expected.h5ad", kind, kRows, kWidth);
    int kills = 0;
    double longest_us = 2000;
    while (!fs::exists(path)) {
      const pid_t child = fork_child([&] {
        AnnDataWriter writer(path, embedding_settings(kind, kWidth), Start::kResume);
        append_until(writer, kind, kRows, kWidth, 10);
        writer.finish();
        return 0;
      });
      // The first delays are too short to finish; they grow until even a slow machine gets through.
      ::usleep(static_cast<useconds_t>(std::uniform_real_distribution<>(0, longest_us)(random)));
      longest_us *= 1.4;
      ::kill(child, SIGKILL);
      const int status = wait_for(child);
      ASSERT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0) << "the child failed to resume";
      ++kills;
    }
    EXPECT_GT(kills, 3);
    EXPECT_EQ(content_of(path), content_of(directory / "expected.h5ad"));
  }
}

// A limit on file size stands for the full disk: write(2) then fails half-way through the rows.
TEST(AnnDataWriter, AFullDiskIsAnErrorAndCostsNoCompleteRow) {
  const test::TemporaryDirectory directory;
  const auto path = directory / "out.h5ad";
  const auto settings = embedding_settings(RowKind::kPooled, 256);
  const pid_t child = fork_child([&] {
    limit_file_size(400 * 1024);
    AnnDataWriter writer(path, settings, Start::kFresh);
    const auto message = error_of([&] { append_until(writer, RowKind::kPooled, 1000, 256, 10); });
    const bool clear = message.find("File too large") != std::string::npos &&
                       message.find(path) != std::string::npos &&
                       message.find("rows before are kept") != std::string::npos;
    return clear && writer.rows() > 300 && writer.rows() < 400 ? 0 : 1;
  });
  EXPECT_EQ(wait_for(child), 0);
  EXPECT_FALSE(fs::exists(path));
  AnnDataWriter writer(path, settings, Start::kResume);
  EXPECT_GT(writer.rows(), 300);
  append_until(writer, RowKind::kPooled, 1000, 256, 10);
  writer.finish();
  write_whole(directory / "expected.h5ad", RowKind::kPooled, 1000, 256);
  EXPECT_EQ(content_of(path), content_of(directory / "expected.h5ad"));
}

TEST(AnnDataWriter, AFullDiskInFinishKeepsTheRows) {
  const test::TemporaryDirectory directory;
  const auto path = directory / "out.h5ad";
  const auto settings = embedding_settings(RowKind::kPooled, 4);
  const pid_t child = fork_child([&] {
    AnnDataWriter writer(path, settings, Start::kFresh);
    append_until(writer, RowKind::kPooled, 5000, 4, 100);
    limit_file_size(400 * 1024);
    const auto message = error_of([&] { writer.finish(); });
    return message.find("File too large") != std::string::npos ? 0 : 1;
  });
  EXPECT_EQ(wait_for(child), 0);
  EXPECT_FALSE(fs::exists(path));
  EXPECT_FALSE(fs::exists(path + ".partial.h5"));
  AnnDataWriter writer(path, settings, Start::kResume);
  EXPECT_EQ(writer.rows(), 5000);
  writer.finish();
  write_whole(directory / "expected.h5ad", RowKind::kPooled, 5000, 4);
  EXPECT_EQ(content_of(path), content_of(directory / "expected.h5ad"));
}

TEST(AnnDataWriter, AFullDiskAtTheStartLeavesNothing) {
  const test::TemporaryDirectory directory;
  const auto child = fork_child([&] {
    test::limit_file_size(16);
    const auto settings = embedding_settings(RowKind::kPooled, 8);
    return error_of([&] { AnnDataWriter(directory / "out.h5ad", settings, Start::kFresh); }).empty() ? 1 : 0;
  });
  EXPECT_EQ(wait_for(child), 0);
  EXPECT_TRUE(directory.empty());
}

TEST(AnnDataWriter, FollowsASymbolicLink) {
  const test::TemporaryDirectory directory;
  fs::create_directory(directory / "data");
  fs::create_symlink("data/out.h5ad", directory / "link.h5ad");
  write_whole(directory / "link.h5ad", RowKind::kPooled, 20, 4);
  EXPECT_TRUE(fs::is_symlink(directory / "link.h5ad"));
  EXPECT_TRUE(fs::is_regular_file(directory / "data/out.h5ad"));
}

TEST(AnnDataWriter, UnusablePlacesAreFoundAtTheStart) {
  const test::TemporaryDirectory directory;
  const auto settings = embedding_settings(RowKind::kPooled, 4);
  fs::create_directory(directory / "folder");
  const auto is_folder = error_of([&] { AnnDataWriter(directory / "folder", settings, Start::kFresh); });
  EXPECT_NE(is_folder.find("Is a directory"), std::string::npos) << is_folder;
  EXPECT_FALSE(fs::exists(directory / "folder.partial") || fs::exists(directory / "folder.partial.obs"));
  const auto absent = error_of([&] { AnnDataWriter(directory / "no/out.h5ad", settings, Start::kFresh); });
  EXPECT_NE(absent.find("No such file or directory"), std::string::npos) << absent;
  fs::permissions(directory / "folder", fs::perms::owner_read | fs::perms::owner_exec);
  if (::geteuid() != 0) {  // nothing is read-only to root
    const auto denied =
        error_of([&] { AnnDataWriter(directory / "folder/out.h5ad", settings, Start::kFresh); });
    EXPECT_NE(denied.find("Permission denied"), std::string::npos) << denied;
  }
}

TEST(AnnDataWriter, MemoryDoesNotGrowWithTheRows) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers keep freed memory";
#endif
  const auto peak_kib = [](std::int64_t rows) {
    const test::TemporaryDirectory directory;
    rusage usage{};
    const pid_t child = fork_child([&] {
      write_whole(directory / "out.h5ad", RowKind::kPooled, rows, 4, 1000);
      return 0;
    });
    EXPECT_EQ(wait_for(child, &usage), 0);
    return usage.ru_maxrss;
  };
  // 900 000 rows more are 14 MB of X and 60 MB of obs. The filter of names may take 64 bits a row: 7 MB here.
  EXPECT_LT(peak_kib(1000000), peak_kib(100000) + 16 * 1024);
}

}  // namespace
}  // namespace longstrand::io
