#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "kernels/wavefront.hpp"

namespace longstrand {
namespace {

struct WavefrontCase {
  int threads;
  std::int64_t items;
  int stages;
  int in_flight;
  const char* reason;
};

class WavefrontTest : public testing::TestWithParam<WavefrontCase> {};

/// Every step runs once, after both that it waits for, and never more items than in_flight are under way.
TEST_P(WavefrontTest, KeepsTheOrder) {
  const WavefrontCase c = GetParam();
  std::mutex mutex;
  std::set<std::pair<std::int64_t, int>> done;
  Workers workers(c.threads);
  const auto step = [&](std::int64_t item, int stage, Context&) {
    const std::scoped_lock lock(mutex);
    EXPECT_TRUE(stage == 0 || done.contains({item, stage - 1}));
    EXPECT_TRUE(item == 0 || done.contains({item - 1, stage}));
    EXPECT_TRUE(item < c.in_flight || done.contains({item - c.in_flight, c.stages - 1}));
    EXPECT_TRUE(done.emplace(item, stage).second);
    return true;
  };
  for (int repeat = 0; repeat < 20; ++repeat) {
    done.clear();
    workers.run({.items = c.items, .stages = c.stages, .in_flight = c.in_flight, .step = step});
    EXPECT_EQ(done.size(), static_cast<std::size_t>(c.items * c.stages));
  }
}

TEST_P(WavefrontTest, UnboundedItemsEndWhereTheFirstStageSaysSo) {
  const WavefrontCase c = GetParam();
  std::vector<std::atomic<std::int64_t>> steps(c.stages);
  Workers workers(c.threads);
  workers.run({.items = Workers::kUnbounded,
               .stages = c.stages,
               .in_flight = c.in_flight,
               .step = [&](std::int64_t item, int stage, Context&) {
                 if (stage == 0 && item == c.items) return false;
                 ++steps[stage];
                 return true;
               }});
  for (const auto& count : steps) EXPECT_EQ(count, c.items);
}

TEST_P(WavefrontTest, IndependentStagesOnlyKeepTheOrderOfTheirItems) {
  const WavefrontCase c = GetParam();
  std::vector<std::atomic<std::int64_t>> steps(c.stages);
  Workers workers(c.threads);
  for (int repeat = 0; repeat < 20; ++repeat) {
    for (auto& count : steps) count = 0;
    workers.run({.items = c.items,
                 .stages = c.stages,
                 .independent = true,
                 .step = [&](std::int64_t item, int stage, Context&) {
                   EXPECT_EQ(steps[stage]++, item);
                   return true;
                 }});
    for (const auto& count : steps) EXPECT_EQ(count, c.items);
  }
}

/// Each waits for the other: one thread a stage.
TEST(Wavefront, IndependentStagesRunAtOnce) {
  Workers workers(2);
  std::atomic<int> inside = 0;
  workers.run({.items = 1, .stages = 2, .independent = true, .step = [&](std::int64_t, int, Context&) {
                 ++inside;
                 while (inside < 2) std::this_thread::yield();
                 return true;
               }});
}

INSTANTIATE_TEST_SUITE_P(Cases, WavefrontTest,
                         testing::Values(WavefrontCase{1, 5, 3, 1, "one thread, one item at a time"},
                                         WavefrontCase{2, 40, 9, 3, "the usual case"},
                                         WavefrontCase{4, 0, 2, 2, "nothing to do"},
                                         WavefrontCase{4, 30, 1, 4, "a single stage"},
                                         WavefrontCase{7, 50, 3, 2, "more threads than can work"},
                                         WavefrontCase{3, 1, 8, 4, "a single item"}),
                         [](const auto& instance) { return "case" + std::to_string(instance.index); });

TEST(Wavefront, AnExceptionStopsTheRunAndTheNextRunIsSound) {
  Workers workers(4);
  const auto run = [&](std::int64_t failing_item) {
    std::atomic<int> steps = 0;
    workers.run(
        {.items = 100, .stages = 5, .in_flight = 4, .step = [&](std::int64_t item, int stage, Context&) {
           if (item == failing_item && stage == 3) throw std::runtime_error("step failed");
           ++steps;
           return true;
         }});
    return steps.load();
  };
  EXPECT_THROW(run(10), std::runtime_error);
  EXPECT_EQ(run(-1), 500);
}

TEST(Arena, KeepsPiecesApartAndReusesThem) {
  Arena arena;
  for (int round = 0; round < 3; ++round) {
    Arena::Scope scope(arena);
    auto a = arena.take<float, 1>({1000});
    auto b = arena.take<double, 1>({300000});
    std::fill_n(a.data, 1000, 1.0F);
    std::fill_n(b.data, 300000, 2.0);
    EXPECT_EQ(a.data[999], 1.0F);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(b.data) % kAlignment_bytes, 0U);
  }
  EXPECT_GE(arena.high_water_bytes(), 2404000U);
}

}  // namespace
}  // namespace longstrand
