#include "kernels/cuda_session.cuh"
#include "kernels/cuda_staging.cuh"

namespace longstrand::cuda {
namespace {

/// Pieces of the ring begin at a multiple of this, so that the GPU reads whole lines.
constexpr std::size_t kPiece_bytes = 256;

}  // namespace

StagingRing::~StagingRing() {
  for (const Segment& segment : segments_) {
    if (segment.copied) cudaEventDestroy(segment.copied);
  }
}

/// The segment's memory and event, made when it is first used.
bool StagingRing::open(Segment& segment) {
  if (!segment.memory) segment.memory = allocate_pinned(kSegment_bytes);
  if (!segment.memory) return false;
  if (!segment.copied) {
    check(cudaEventCreateWithFlags(&segment.copied, cudaEventDisableTiming), "create an event");
  }
  return true;
}

std::byte* StagingRing::take(std::size_t size_bytes, cudaStream_t stream) {
  size_bytes = (size_bytes + kPiece_bytes - 1) / kPiece_bytes * kPiece_bytes;
  if (!open(segments_[current_])) return nullptr;
  if (used_bytes_ + size_bytes > kSegment_bytes) {
    check(cudaEventRecord(segments_[current_].copied, stream), "record an event");
    current_ = (current_ + 1) % kSegments;
    used_bytes_ = 0;
    if (!open(segments_[current_])) return nullptr;
    // An event that was never recorded counts as reached.
    check(cudaEventSynchronize(segments_[current_].copied), "wait for a copy");
  }
  std::byte* piece = segments_[current_].memory.get() + used_bytes_;
  used_bytes_ += size_bytes;
  return piece;
}

}  // namespace longstrand::cuda
