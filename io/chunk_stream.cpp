#include "io/chunk_stream.hpp"

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>

#include "io/byte_stream.hpp"
#include "io/lane_feeder.hpp"
#include "io/record_bundler.hpp"

namespace longstrand::io {
namespace {

void require(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

void check(const ChunkStreamOptions& options) {
  require(options.lanes >= 1, "the number of lanes must be at least 1");
  require(options.bundle >= 1, "a chunk must hold at least 1 record");
  require(options.bundle == 1 || options.lanes == 1, "lanes are either fixed or bundled");
  require(options.chunk_tokens >= 1, "a chunk must hold at least 1 token");
  require(options.queue_chunks >= 1, "at least 1 chunk must fit into the queue");
  require(options.window >= 0 && options.stride >= 0, "window and stride cannot be negative");
  require(options.window > 0 || options.stride == 0, "a stride needs a window");
  require(options.min_window >= 0, "the shortest window cannot be negative");
  require(options.skip_records >= 0, "the number of records to skip cannot be negative");
}

std::vector<ChunkInput> file_inputs(const std::vector<std::string>& paths, const SourceOptions& options) {
  const bool same_regions = !options.regions.empty() || !options.regions_file.empty();
  std::vector<ChunkInput> inputs;
  inputs.reserve(paths.size());
  for (const std::string& path : paths) {
    inputs.push_back({.path = path,
                      .open = [path, options] { return open_sequences(path, options); },
                      .size = same_regions ? 1 : file_bytes(path)});
  }
  return inputs;
}

}  // namespace

void TokenChunk::resize(std::int64_t to_lanes, std::int64_t to_length) {
  lanes = to_lanes;
  length = to_length;
  const auto per_lane = static_cast<std::size_t>(lanes);
  const auto per_token = static_cast<std::size_t>(lanes * length);
  tokens.resize(per_token);
  soft_mask.resize(per_token);
  valid.resize(per_lane);
  starts.resize(per_lane);
  ends.resize(per_lane);
  offset.resize(per_lane);
  record_index.resize(per_lane);
  file_index.resize(per_lane);
  records.resize(per_lane);
}

// The reading thread takes spent chunks, fills them and queues them; next() swaps a queued one for a spent
// one.
class ChunkStream::Impl {
 public:
  Impl(std::vector<ChunkInput> inputs, const ChunkStreamOptions& options)
      : inputs_(std::move(inputs)), options_(options), thread_([this] { read(); }) {}

  ~Impl() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    room_.notify_one();
    thread_.join();
  }

  bool next(TokenChunk& chunk) {
    std::unique_lock lock(mutex_);
    arrival_.wait(lock, [&] { return !queued_.empty() || finished_; });
    if (queued_.empty()) {
      if (error_) std::rethrow_exception(error_);
      return false;
    }
    spent_.push_back(std::exchange(chunk, std::move(queued_.front())));
    queued_.pop_front();
    lock.unlock();
    room_.notify_one();
    return true;
  }

 private:
  void read() {
    std::exception_ptr error;
    try {
      if (options_.bundle > 1) {
        fill_from(RecordBundler(inputs_, options_));
      } else {
        fill_from(LaneFeeder(inputs_, options_));
      }
    } catch (...) {
      error = std::current_exception();
    }
    {
      const std::lock_guard lock(mutex_);
      error_ = error;
      finished_ = true;
    }
    arrival_.notify_one();
  }

  template <class Feeder>
  void fill_from(Feeder feeder) {
    TokenChunk chunk;
    while (take_spent(chunk) && feeder.fill(chunk)) queue(std::move(chunk));
  }

  // Waits for room in the queue; false if the stream is being destroyed.
  bool take_spent(TokenChunk& chunk) {
    std::unique_lock lock(mutex_);
    room_.wait(lock, [&] { return stopping_ || std::ssize(queued_) < options_.queue_chunks; });
    if (!spent_.empty()) {
      chunk = std::move(spent_.back());
      spent_.pop_back();
    }
    return !stopping_;
  }

  void queue(TokenChunk&& chunk) {
    {
      const std::lock_guard lock(mutex_);
      queued_.push_back(std::move(chunk));
    }
    arrival_.notify_one();
  }

  std::vector<ChunkInput> inputs_;
  ChunkStreamOptions options_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable arrival_;
  std::condition_variable room_;
  std::deque<TokenChunk> queued_;
  std::vector<TokenChunk> spent_;
  std::exception_ptr error_;
  bool finished_ = false;
  bool stopping_ = false;
  std::thread thread_;  // last, so that it starts when the rest exists
};

ChunkStream::ChunkStream(const std::vector<std::string>& paths, const SourceOptions& source_options,
                         const ChunkStreamOptions& options)
    : ChunkStream(file_inputs(paths, source_options), options) {}

ChunkStream::ChunkStream(std::vector<ChunkInput> inputs, const ChunkStreamOptions& options) {
  check(options);
  impl_ = std::make_unique<Impl>(std::move(inputs), options);
}

ChunkStream::ChunkStream(ChunkStream&&) noexcept = default;
ChunkStream& ChunkStream::operator=(ChunkStream&&) noexcept = default;
ChunkStream::~ChunkStream() = default;

bool ChunkStream::next(TokenChunk& chunk) { return impl_->next(chunk); }

}  // namespace longstrand::io
