#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "io/atomic_file.hpp"
#include "io/metrics_log.hpp"
#include "support/child_process.hpp"
#include "support/temporary_directory.hpp"

namespace longstrand::io {
namespace {

using test::content_of;
using Json = nlohmann::ordered_json;

Json metrics_of(std::int64_t step) { return {{"step", step}, {"loss", 1.0 / static_cast<double>(step)}}; }

void append_steps(MetricsLog& log, std::int64_t first, std::int64_t last) {
  for (auto step = first; step <= last; ++step) {
    log.append(metrics_of(step));
  }
}

class MetricsLogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    MetricsLog log(path_);
    append_steps(log, 1, 30);
    whole_ = content_of(path_);
  }
  test::TemporaryDirectory directory_;
  std::string path_ = directory_ / "metrics.jsonl";
  std::string whole_;  // the log of 30 uninterrupted steps
};

TEST_F(MetricsLogTest, OneLineAStepInTheOrderOfTheKeys) {
  EXPECT_TRUE(whole_.starts_with("{\"step\":1,\"loss\":1.0}\n{\"step\":2,\"loss\":0.5}\n")) << whole_;
  EXPECT_EQ(std::count(whole_.begin(), whole_.end(), '\n'), 30);
}

// Wherever the killed run stopped writing, the resumed one ends in the same bytes.
TEST_F(MetricsLogTest, AResumedLogEqualsAnUninterruptedOne) {
  const auto saved_at = static_cast<std::int64_t>(whole_.find("{\"step\":11,"));
  for (auto length = saved_at; length <= std::ssize(whole_); ++length) {
    std::ofstream(path_) << whole_.substr(0, static_cast<std::size_t>(length));
    MetricsLog log(path_, 10);
    append_steps(log, 11, 30);
    ASSERT_EQ(content_of(path_), whole_) << "killed after byte " << length;
  }
}

TEST_F(MetricsLogTest, ResumingFromStepZeroEmptiesTheLog) {
  MetricsLog log(path_, 0);
  EXPECT_EQ(content_of(path_), "");
}

TEST_F(MetricsLogTest, ANewLogReplacesAnOldOne) {
  MetricsLog log(path_);
  append_steps(log, 1, 1);
  EXPECT_EQ(content_of(path_), "{\"step\":1,\"loss\":1.0}\n");
}

TEST_F(MetricsLogTest, MissingLinesCutNothingOff) {
  MetricsLog log(path_, 40);
  EXPECT_EQ(content_of(path_), whole_);
}

TEST_F(MetricsLogTest, AnAbsentLogIsBegun) {
  std::filesystem::remove(path_);
  MetricsLog log(path_, 10);
  append_steps(log, 1, 30);
  EXPECT_EQ(content_of(path_), whole_);
}

TEST_F(MetricsLogTest, ALineThatIsNoStepIsAnErrorThatNamesIt) {
  for (const char* line : {"{\"loss\":1}", "not json", "{\"step\":\"x\"}", ""}) {
    write_file(path_, "{\"step\":1}\n" + std::string(line) + "\n{\"step\":3}\n");
    const auto message = test::error_of([&] { MetricsLog(path_, 10); });
    EXPECT_NE(message.find(path_ + "' line 2 "), std::string::npos) << message;
  }
}

TEST_F(MetricsLogTest, NumbersThatJsonLacksBecomeNull) {
  MetricsLog log(path_);
  log.append({{"step", 1}, {"loss", std::nan("")}});
  EXPECT_EQ(content_of(path_), "{\"step\":1,\"loss\":null}\n");
}

}  // namespace
}  // namespace longstrand::io
