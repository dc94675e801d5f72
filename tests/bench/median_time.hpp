// The time of a call, for the benchmarks.
#pragma once

#include <algorithm>
#include <ctime>
#include <vector>

namespace longstrand {

/// Processor time of the calling thread: others may be using the machine.
inline double thread_time_us() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) * 1e-3;
}

/// Median over rounds of the time of one call, in microseconds.
template <class Call>
double median_us(const Call& call) {
  constexpr int kRounds = 11;
  constexpr double kRound_us = 4000;
  const auto time_us = [&](int calls) {
    const double begin_us = thread_time_us();
    for (int i = 0; i < calls; ++i) call();
    return thread_time_us() - begin_us;
  };
  time_us(3);
  const int calls = std::max(1, static_cast<int>(kRound_us / time_us(1)));
  std::vector<double> rounds;
  for (int i = 0; i < kRounds; ++i) rounds.push_back(time_us(calls) / calls);
  std::nth_element(rounds.begin(), rounds.begin() + kRounds / 2, rounds.end());
  return rounds[kRounds / 2];
}

}  // namespace longstrand
