#include "kernels/memory.hpp"

#include <algorithm>
#include <cstring>
#include <new>

#include "kernels/cuda_runtime.hpp"

namespace longstrand {
namespace {

std::size_t round_up(std::size_t size_bytes) {
  return (size_bytes + kAlignment_bytes - 1) / kAlignment_bytes * kAlignment_bytes;
}

}  // namespace

std::int64_t device_memory_bytes(Device device) {
  assert(device.kind == DeviceKind::cuda);
  if constexpr (kCudaBuilt) return static_cast<std::int64_t>(cuda::memory_info(device).total_bytes);
  return 0;
}

Buffer::Buffer(std::size_t size_bytes, Device device, Overflow overflow)
    : size_bytes_(size_bytes), device_(device) {
  if (size_bytes == 0) return;
  if constexpr (kCudaBuilt) {
    if (device.kind == DeviceKind::cuda) {
      if (overflow == Overflow::to_host) {
        const auto [free_bytes, total_bytes] = cuda::memory_info(device);
        const bool has_room = size_bytes + total_bytes / 16 <= free_bytes;
        if (!has_room) data_ = {cuda::allocate_pinned(size_bytes).release(), Free{Place::pinned}};
      }
      if (!data_) data_ = {cuda::allocate(size_bytes, device), Free{Place::device}};
      zero();
      return;
    }
  }
  data_.reset(
      static_cast<std::byte*>(::operator new (round_up(size_bytes), std::align_val_t{kAlignment_bytes})));
  zero();
}

void Buffer::zero() {
  if (!data_) return;
  if constexpr (kCudaBuilt) {
    if (device_.kind == DeviceKind::cuda) {
      cuda::zero(data_.get(), size_bytes_, device_);
      return;
    }
  }
  std::memset(data_.get(), 0, size_bytes_);
}

void Buffer::Free::operator()(std::byte* pointer) const noexcept {
  if constexpr (kCudaBuilt) {
    if (place == Place::device) return cuda::deallocate(pointer);
    if (place == Place::pinned) return cuda::deallocate_pinned(pointer);
  }
  ::operator delete (pointer, std::align_val_t{kAlignment_bytes});
}

void* Arena::take_bytes(std::size_t size_bytes) {
  constexpr std::size_t kSmallestBlock_bytes = std::size_t{1} << 20;
  if (block_ == 0 && used_bytes_ == 0 && blocks_.size() > 1 &&
      overflow_bytes() == 0) {  // nothing is lent: one block for all from now on
    blocks_.clear();
    blocks_.emplace_back(high_water_bytes_, device_, overflow_);
  }
  size_bytes = round_up(std::max<std::size_t>(size_bytes, 1));
  while (block_ < blocks_.size() && used_bytes_ + size_bytes > blocks_[block_].size_bytes()) {
    ++block_;
    used_bytes_ = 0;
  }
  if (block_ == blocks_.size()) {
    blocks_.emplace_back(std::max(size_bytes, kSmallestBlock_bytes), device_, overflow_);
  }
  void* piece = blocks_[block_].data() + used_bytes_;
  used_bytes_ += size_bytes;
  std::size_t in_use_bytes = used_bytes_;
  for (std::size_t i = 0; i < block_; ++i) in_use_bytes += blocks_[i].size_bytes();
  high_water_bytes_ = std::max(high_water_bytes_, in_use_bytes);
  return piece;
}

std::size_t Arena::overflow_bytes() const {
  std::size_t total_bytes = 0;
  for (const Buffer& block : blocks_) total_bytes += block.overflowed() ? block.size_bytes() : 0;
  return total_bytes;
}

void Arena::release_to(std::size_t block, std::size_t used_bytes) {
  block_ = block;
  used_bytes_ = used_bytes;
}

}  // namespace longstrand
