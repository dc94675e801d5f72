// Copies from ordinary host memory to a GPU that the host need not wait for: what is to be copied is put
// into a ring of pinned memory first.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstddef>

#include "kernels/cuda_runtime.hpp"

namespace longstrand::cuda {

/// Of one stream and one thread. The ring's segments are used in turn; an event behind the last copy out of
/// a segment says when it may be used again.
class StagingRing {
 public:
  static constexpr std::size_t kSegment_bytes = std::size_t{4} << 20;

  StagingRing() = default;
  ~StagingRing();
  StagingRing(const StagingRing&) = delete;
  StagingRing& operator=(const StagingRing&) = delete;

  /// Room for size_bytes <= kSegment_bytes, good until the copy out of it, which must be the next thing put
  /// on `stream`. Waits where the ring is full. nullptr where there is no pinned memory.
  std::byte* take(std::size_t size_bytes, cudaStream_t stream);

 private:
  static constexpr std::size_t kSegments = 4;
  struct Segment {
    PinnedMemory memory;
    cudaEvent_t copied = nullptr;
  };

  bool open(Segment& segment);

  std::array<Segment, kSegments> segments_;
  std::size_t current_ = 0;
  std::size_t used_bytes_ = 0;  // of the current segment
};

}  // namespace longstrand::cuda
