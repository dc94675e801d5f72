#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <random>

#include "io/atomic_file.hpp"
#include "io/trainer_state.hpp"
#include "support/child_process.hpp"
#include "support/temporary_directory.hpp"

namespace longstrand::io {
namespace {

namespace fs = std::filesystem;
using test::content_of;
using test::error_of;

Snapshot sample(float value) {
  return {.arrays = {{"adam.m", std::vector<float>(1000, value)},
                     {"empty", {}},
                     {"special", {-0.0F, std::numeric_limits<float>::infinity(), 1e-45F}}},
          .integers = {{"step", 12}, {"random", std::numeric_limits<std::int64_t>::min()}},
          .reals = {{"best_loss", 0.1}, {"smallest", 5e-324}},
          .strings = {{"empty", ""}, {"config", std::string(100000, 'x')}, {"name", "é"}}};
}

void expect_equal(const Snapshot& left, const Snapshot& right) {
  EXPECT_EQ(left.arrays, right.arrays);
  EXPECT_EQ(left.integers, right.integers);
  EXPECT_EQ(left.reals, right.reals);
  EXPECT_EQ(left.strings, right.strings);
}

TEST(TrainerState, LoadsWhatWasSaved) {
  const test::TemporaryDirectory directory;
  save_snapshot(directory / "trainer.h5", view(sample(1.5F)));
  expect_equal(load_snapshot(directory / "trainer.h5"), sample(1.5F));
  save_snapshot(directory / "trainer.h5", {});
  expect_equal(load_snapshot(directory / "trainer.h5"), {});
}

TEST(TrainerState, FollowsASymbolicLink) {
  const test::TemporaryDirectory directory;
  fs::create_symlink("target.h5", directory / "trainer.h5");
  save_snapshot(directory / "trainer.h5", view(sample(1)));
  EXPECT_TRUE(fs::is_symlink(directory / "trainer.h5"));
  expect_equal(load_snapshot(directory / "target.h5"), sample(1));
}

TEST(TrainerState, BitsOfNanSurvive) {
  const test::TemporaryDirectory directory;
  const std::vector<float> nan{std::nanf("123")};
  save_snapshot(directory / "trainer.h5",
                {.arrays = {{"nan", nan}}, .integers = {}, .reals = {}, .strings = {}});
  const auto loaded = load_snapshot(directory / "trainer.h5").arrays.at("nan");
  EXPECT_EQ(std::memcmp(loaded.data(), nan.data(), sizeof(float)), 0);
}

TEST(TrainerState, EqualSnapshotsMakeEqualFiles) {
  const test::TemporaryDirectory directory;
  save_snapshot(directory / "a.h5", view(sample(2)));
  save_snapshot(directory / "b.h5", view(sample(2)));
  EXPECT_EQ(content_of(directory / "a.h5"), content_of(directory / "b.h5"));
}

TEST(TrainerState, KilledWhileSavingLeavesAWholeSnapshot) {
  const test::TemporaryDirectory directory;
  const auto path = directory / "trainer.h5";
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  save_snapshot(path, view(sample(0)));
  for (int round = 0; round < 20; ++round) {
    const auto child = test::fork_child([&] {
      for (float value = 1;; ++value) {
        save_snapshot(path, view(sample(value)));
      }
      return 0;
    });
    ::usleep(std::uniform_int_distribution<unsigned>(1000, 20000)(random));
    ::kill(child, SIGKILL);
    EXPECT_TRUE(WIFSIGNALED(test::wait_for(child)));
    const auto loaded = load_snapshot(path);
    expect_equal(loaded, sample(loaded.arrays.at("adam.m").front()));
  }
}

TEST(TrainerState, AFullDiskKeepsTheOldSnapshot) {
  const test::TemporaryDirectory directory;
  const auto path = directory / "trainer.h5";
  save_snapshot(path, view(sample(1)));
  const auto child = test::fork_child([&] {
    test::limit_file_size(50000);
    const auto message = error_of([&] { save_snapshot(path, view(sample(2))); });
    return message.find(path) != std::string::npos && message.find("File too large") != std::string::npos ? 0
                                                                                                          : 1;
  });
  EXPECT_EQ(test::wait_for(child), 0);
  expect_equal(load_snapshot(path), sample(1));
  EXPECT_FALSE(fs::exists(path + ".partial"));
}

TEST(TrainerState, FilesThatAreNoSnapshotAreErrorsThatNameThem) {
  const test::TemporaryDirectory directory;
  const auto path = directory / "trainer.h5";
  EXPECT_NE(error_of([&] { load_snapshot(path); }).find("No such file or directory"), std::string::npos);
  write_file(path, "no HDF5");
  EXPECT_NE(error_of([&] { load_snapshot(path); }).find(path), std::string::npos);
  save_snapshot(path, view(sample(1)));
  const auto whole = content_of(path);
  for (const std::size_t length : {0, 8, 100, 1000, 5000}) {
    write_file(path, whole.substr(0, length));
    EXPECT_NE(error_of([&] { load_snapshot(path); }).find(path), std::string::npos) << length << " bytes";
  }
}

}  // namespace
}  // namespace longstrand::io
