// Threads share a model as a wavefront: items (chunks, in order) flow through stages (layers), and a stage
// takes one item after the other. step(item, stage) runs after step(item, stage - 1) and step(item - 1,
// stage), on any thread; nothing else is ordered. As every stage sees the items in order, state carried from
// item to item and gradients accumulated per stage are the same, bit for bit, for any number of threads.
//
// Independent stages do not wait for one another: then each goes through all items on its own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/context.hpp"

namespace longstrand {

/// A fixed set of threads, the calling one included, each with its own Context. Of a GPU, whose operations
/// all go to one stream, the calling one alone: it takes an item through all stages before the next one.
class Workers {
 public:
  /// Throws std::runtime_error where the system starts no more threads.
  explicit Workers(int threads, Device device = {});
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  /// The Context of the calling thread outside run().
  Context& main_context() { return *contexts_.front(); }
  /// The largest scratch memory that all Contexts together have held.
  std::size_t scratch_bytes() const;

  struct Wavefront {
    std::int64_t items = 0;  // or kUnbounded: until a step of stage 0 returns false
    int stages = 0;
    int in_flight = 0;         // at most this many items between stage 0 and the last: ring buffers suffice
    bool independent = false;  // the stages, of which in_flight then says nothing; items must be bounded
    /// Returns false from stage 0 to say that there is no such item; elsewhere the result is ignored.
    std::function<bool(std::int64_t item, int stage, Context&)> step;
  };
  static constexpr std::int64_t kUnbounded = -1;

  /// Runs to the end. The first exception of a step stops all threads and is rethrown here.
  void run(const Wavefront& wavefront);

 private:
  struct Pool;
  std::vector<std::unique_ptr<Context>> contexts_;
  std::unique_ptr<Pool> pool_;
};

}  // namespace longstrand
