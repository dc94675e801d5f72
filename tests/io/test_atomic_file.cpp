#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "io/atomic_file.hpp"
#include "support/child_process.hpp"
#include "support/temporary_directory.hpp"

namespace longstrand::io {
namespace {

namespace fs = std::filesystem;
using test::content_of;
using test::error_of;

constexpr std::size_t kMoreThanTheBuffer = 1 << 20;

TEST(AtomicFile, AppearsWithCommitAndNotBefore) {
  const test::TemporaryDirectory directory;
  const auto path = directory / "out.tsv";
  write_file(path, "old");
  AtomicFile file(path);
  file.write("ne");
  file.write(std::string(kMoreThanTheBuffer, 'x'));
  file.write("w");
  EXPECT_EQ(content_of(path), "old");
  file.commit();
  EXPECT_EQ(content_of(path), "ne" + std::string(kMoreThanTheBuffer, 'x') + "w");
  EXPECT_FALSE(fs::exists(path + ".partial"));
}

TEST(AtomicFile, LeavesNothingWithoutCommit) {
  const test::TemporaryDirectory directory;
  { AtomicFile(directory / "out.tsv").write("half a table"); }
  EXPECT_TRUE(directory.empty());
}

TEST(AtomicFile, ASecondWriterIsRefusedAndHarmsNothing) {
  const test::TemporaryDirectory directory;
  const auto path = directory / "out.tsv";
  AtomicFile first(path);
  first.write("first");
  first.flush();
  const auto message = error_of([&] { AtomicFile second(path); });
  EXPECT_NE(message.find("out.tsv.partial' is in use"), std::string::npos) << message;
  first.commit();
  EXPECT_EQ(content_of(path), "first");
  write_file(path, "third");
  EXPECT_EQ(content_of(path), "third");
}

TEST(FileDescriptor, DoesNotLockAFileThatHasLeftItsPath) {
  const test::TemporaryDirectory directory;
  write_file(directory / "a", "text");
  FileDescriptor opened(directory / "a", O_RDWR);
  opened.require_lock();
  FileDescriptor renamed(directory / "a", O_RDWR);
  opened.close();
  fs::rename(directory / "a", directory / "b");
  EXPECT_NE(error_of([&] { renamed.require_lock(); }).find("is in use"), std::string::npos);
}

TEST(AtomicFile, ManySmallWritesKeepTheirOrder) {
  const test::TemporaryDirectory directory;
  std::string expected;
  AtomicFile file(directory / "out.tsv");
  for (int i = 0; i < 100000; ++i) {
    const auto line = std::to_string(i) + '\n';
    file.write(line);
    expected += line;
  }
  file.commit();
  EXPECT_EQ(content_of(directory / "out.tsv"), expected);
}

TEST(AtomicFile, FollowsASymbolicLink) {
  const test::TemporaryDirectory directory;
  write_file(directory / "target", "old");
  fs::create_symlink(directory / "target", directory / "link");
  write_file(directory / "link", "new");
  EXPECT_TRUE(fs::is_symlink(directory / "link"));
  EXPECT_EQ(content_of(directory / "target"), "new");
}

TEST(AtomicFile, FollowsALinkToAFileThatDoesNotExistYet) {
  const test::TemporaryDirectory directory;
  fs::create_directory(directory / "sub");
  fs::create_symlink("sub/second", directory / "link");  // relative to the folder of the link
  fs::create_symlink("target", directory / "sub/second");
  write_file(directory / "link", "new");
  EXPECT_TRUE(fs::is_symlink(directory / "link"));
  EXPECT_EQ(content_of(directory / "sub/target"), "new");
}

TEST(AtomicFile, LinksInACircleAreAnError) {
  const test::TemporaryDirectory directory;
  fs::create_symlink("b", directory / "a");
  fs::create_symlink("a", directory / "b");
  EXPECT_NE(error_of([&] { AtomicFile(directory / "a"); }).find("symbolic links"), std::string::npos);
}

TEST(AtomicFile, WritesADeviceInPlace) {
  write_file("/dev/null", "x");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST(AtomicFile, AFullDiskIsOneError) {
  const auto message = error_of([] { write_file("/dev/full", "x"); });
  EXPECT_EQ(message, "cannot write '/dev/full': No space left on device");

  const test::TemporaryDirectory directory;
  const auto child = test::fork_child([&] {
    test::limit_file_size(4096);
    const auto limit = error_of([&] { write_file(directory / "out", std::string(8192, 'x')); });
    return limit == "cannot write '" + (directory / "out") + ".partial': File too large" ? 0 : 1;
  });
  EXPECT_EQ(test::wait_for(child), 0);
  EXPECT_TRUE(directory.empty());
}

TEST(AtomicFile, AnUnusablePlaceIsAnErrorAtTheStart) {
  const test::TemporaryDirectory directory;
  EXPECT_NE(error_of([&] { AtomicFile(directory / "no/out"); }).find("No such file or directory"),
            std::string::npos);
  EXPECT_NE(error_of([&] { AtomicFile(directory / ""); }).find("Is a directory"), std::string::npos);
}

// Standard output of a child that writes "text" and commits.
void write_to_standard_output(int descriptor) {
  ::signal(SIGPIPE, SIG_IGN);
  ::dup2(descriptor, STDOUT_FILENO);
  write_file("-", "text");
}

TEST(AtomicFile, DashIsStandardOutput) {
  const test::TemporaryDirectory directory;
  const auto child = test::fork_child([&] {
    write_to_standard_output(FileDescriptor(directory / "out", O_WRONLY | O_CREAT).get());
    return 0;
  });
  EXPECT_EQ(test::wait_for(child), 0);
  EXPECT_EQ(content_of(directory / "out"), "text");
}

// What a shell has redirected standard output to goes on behind what is there.
TEST(AtomicFile, AnOpenDescriptorIsWrittenWhereItStands) {
  for (const std::string path : {"/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}) {
    const test::TemporaryDirectory directory;
    write_file(directory / "out", "before ");
    const auto child = test::fork_child([&] {
      const FileDescriptor out(directory / "out", O_WRONLY | O_APPEND);
      ::dup2(out.get(), STDOUT_FILENO);
      write_file(path, "text");
      return is_stream(path) && ::write(STDOUT_FILENO, " after", 6) == 6 ? 0 : 1;
    });
    EXPECT_EQ(test::wait_for(child), 0);
    EXPECT_EQ(content_of(directory / "out"), "before text after") << path;
  }
  EXPECT_FALSE(is_stream("out.tsv"));
}

TEST(AtomicFile, AClosedPipeIsAnError) {
  const auto child = test::fork_child([] {
    int ends[2];
    if (::pipe(ends) != 0 || ::close(ends[0]) != 0) {
      return 1;
    }
    const auto message = error_of([&] { write_to_standard_output(ends[1]); });
    return message == "cannot write 'standard output': Broken pipe" ? 0 : 2;
  });
  EXPECT_EQ(test::wait_for(child), 0);
}

}  // namespace
}  // namespace longstrand::io
