#include "kernels/readback.hpp"

#include "kernels/transfer.hpp"

namespace longstrand::detail {

void* Landing::start(const void* from, std::size_t size_bytes, Context& context) {
  if constexpr (kCudaBuilt) {
    if (pinned_bytes_ < size_bytes) {
      pinned_.reset();
      pinned_ = cuda::allocate_pinned(size_bytes);
      pinned_bytes_ = pinned_ ? size_bytes : 0;
    }
    if (!event_) event_ = cuda::make_event(context.device);
    if (pinned_) {
      cuda::start_copy_to_pinned(from, pinned_.get(), size_bytes, context);
    } else {
      if (ordinary_.size_bytes() < size_bytes) ordinary_ = Buffer(size_bytes);
      const auto bytes = static_cast<std::int64_t>(size_bytes);
      copy_runs(from, context.device, ordinary_.data(), Device{}, {1, bytes, bytes, bytes}, context);
    }
    cuda::record(*event_, context);
  }
  return pinned_ ? pinned_.get() : ordinary_.data();
}

void Landing::wait() {
  if constexpr (kCudaBuilt) cuda::wait(*event_);
}

}  // namespace longstrand::detail
