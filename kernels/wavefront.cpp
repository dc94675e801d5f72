#include "kernels/wavefront.hpp"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <condition_variable>
#include <exception>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

namespace longstrand {
namespace {

constexpr int kNoStage = -1;

/// One run's schedule. Every call wants the pool's lock held.
class Schedule {
 public:
  explicit Schedule(const Workers::Wavefront& wavefront)
      : in_flight_(wavefront.in_flight),
        independent_(wavefront.independent),
        limit_(wavefront.items == Workers::kUnbounded ? std::numeric_limits<std::int64_t>::max()
                                                      : wavefront.items),
        completed_(static_cast<std::size_t>(wavefront.stages), 0),
        busy_(static_cast<std::size_t>(wavefront.stages), false) {
    assert(wavefront.stages > 0);
    assert(independent_ ? wavefront.items != Workers::kUnbounded : in_flight_ > 0);
  }

  bool finished() const {
    return stopped_ || (independent_ ? std::ranges::min(completed_) : completed_.back()) >= limit_;
  }
  std::int64_t item_of(int stage) const { return completed_[stage]; }

  /// A stage that can run now: `preferred` (what goes on with the data still in cache) if it can, else the
  /// one whose item is the oldest.
  int pick(int preferred) {
    if (preferred != kNoStage && runnable(preferred)) return take(preferred);
    for (int stage = static_cast<int>(completed_.size()) - 1; stage >= 0; --stage) {
      if (runnable(stage)) return take(stage);
    }
    return kNoStage;
  }
  void complete(int stage) {
    busy_[stage] = false;
    ++completed_[stage];
  }
  /// Stage 0 found no further item.
  void end_of_items() {
    busy_[0] = false;
    limit_ = completed_[0];
  }
  void stop() { stopped_ = true; }

 private:
  bool runnable(int stage) const {
    const std::int64_t item = completed_[stage];
    if (busy_[stage] || item >= limit_) return false;
    if (independent_) return true;
    return stage == 0 ? item - completed_.back() < in_flight_ : completed_[stage - 1] > item;
  }
  int take(int stage) {
    busy_[stage] = true;
    return stage;
  }

  int in_flight_;
  bool independent_;
  std::int64_t limit_;
  std::vector<std::int64_t> completed_;  // items that have left each stage
  std::vector<bool> busy_;
  bool stopped_ = false;
};

}  // namespace

struct Workers::Pool {
  std::mutex mutex;
  std::condition_variable work;      // something became runnable, or the run ended
  std::condition_variable all_idle;  // the last helper left the run
  std::atomic<std::uint64_t> changes = 0;
  int sleeping = 0;
  const Wavefront* wavefront = nullptr;
  std::unique_ptr<Schedule> schedule;
  std::exception_ptr error;
  std::uint64_t run_number = 0;
  int helpers_inside = 0;
  bool shutting_down = false;
  std::vector<std::thread> helpers;

  /// Also where a helper could not be started: those before it end.
  ~Pool() {
    {
      const std::scoped_lock lock(mutex);
      shutting_down = true;
      work.notify_all();
    }
    for (std::thread& helper : helpers) helper.join();
  }

  void announce() {
    changes.fetch_add(1, std::memory_order_release);
    if (sleeping > 0) work.notify_all();
  }

  /// Steps take 0.1 ms and more, so a short spin mostly spares a sleep and its wake-up.
  void wait_for_change(std::unique_lock<std::mutex>& lock) {
    const std::uint64_t seen = changes.load(std::memory_order_acquire);
    lock.unlock();
    for (int spin = 0; spin < 200; ++spin) {
      if (changes.load(std::memory_order_acquire) != seen) break;
      std::this_thread::yield();
    }
    lock.lock();
    if (changes.load(std::memory_order_acquire) != seen) return;
    ++sleeping;
    work.wait(lock, [&] { return changes.load(std::memory_order_relaxed) != seen; });
    --sleeping;
  }

  void take_part(Context& context) {
    std::unique_lock lock(mutex);
    int preferred = kNoStage;
    while (!schedule->finished()) {
      const int stage = schedule->pick(preferred);
      if (stage == kNoStage) {
        preferred = kNoStage;
        wait_for_change(lock);
        continue;
      }
      const std::int64_t item = schedule->item_of(stage);
      lock.unlock();
      bool exists = true;
      std::exception_ptr failure;
      try {
        exists = wavefront->step(item, stage, context);
      } catch (...) {
        failure = std::current_exception();
      }
      lock.lock();
      if (failure) {
        if (!error) error = failure;
        schedule->stop();
      } else if (stage == 0 && !exists) {
        schedule->end_of_items();
      } else {
        schedule->complete(stage);
      }
      const int next = wavefront->independent ? stage : stage + 1;
      preferred = next < wavefront->stages && exists ? next : kNoStage;
      announce();
    }
  }

  void help(Context& context) {
    std::unique_lock lock(mutex);
    std::uint64_t last_run = 0;
    while (true) {
      work.wait(lock, [&] { return shutting_down || (run_number != last_run && schedule != nullptr); });
      if (shutting_down) return;
      last_run = run_number;
      ++helpers_inside;
      lock.unlock();
      take_part(context);
      lock.lock();
      if (--helpers_inside == 0) all_idle.notify_one();
    }
  }
};

Workers::Workers(int threads, Device device) : pool_(std::make_unique<Pool>()) {
  assert(threads >= 1);
  if (device.kind == DeviceKind::cuda) threads = 1;
  for (int i = 0; i < threads; ++i) contexts_.push_back(std::make_unique<Context>(device));
  for (int i = 1; i < threads; ++i) {
    try {
      pool_->helpers.emplace_back(
          [pool = pool_.get(), context = contexts_[i].get()] { pool->help(*context); });
    } catch (const std::system_error&) {
      throw std::runtime_error("the system starts no more than " + std::to_string(i) + " of " +
                               std::to_string(threads) + " threads; try fewer --threads");
    }
  }
}

Workers::~Workers() = default;

std::size_t Workers::scratch_bytes() const {
  std::size_t total_bytes = 0;
  for (const auto& context : contexts_) total_bytes += context->scratch.high_water_bytes();
  return total_bytes;
}

void Workers::run(const Wavefront& wavefront) {
  if (wavefront.items == 0) return;
  {
    const std::scoped_lock lock(pool_->mutex);
    pool_->wavefront = &wavefront;
    pool_->schedule = std::make_unique<Schedule>(wavefront);
    pool_->error = nullptr;
    ++pool_->run_number;
    pool_->work.notify_all();
  }
  pool_->take_part(main_context());
  std::unique_lock lock(pool_->mutex);
  pool_->all_idle.wait(lock, [&] { return pool_->helpers_inside == 0; });
  pool_->schedule.reset();
  if (pool_->error) std::rethrow_exception(std::exchange(pool_->error, nullptr));
}

}  // namespace longstrand
