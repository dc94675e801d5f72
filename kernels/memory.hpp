// Owners of memory: a Buffer holds a fixed block, an Arena hands out pieces of blocks and takes them all
// back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <vector>

#include "kernels/view.hpp"

namespace longstrand {

/// On a GPU one line of its cache, which vector accesses and the matrix products want.
inline constexpr std::size_t kAlignment_bytes = kCudaBuilt ? 128 : 64;

/// The message says how much was asked for and how much is free.
struct DeviceOutOfMemory : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Of a GPU, in all.
std::int64_t device_memory_bytes(Device device);

/// Where a block goes that would leave a GPU less than a sixteenth of its memory.
enum class Overflow : std::uint8_t {
  none,     // on the GPU as long as it fits
  to_host,  // into memory of the host, which the GPU's operations reach by themselves, at the speed of the
            // bus
};

/// A zero-filled block on a device, aligned to kAlignment_bytes. Throws std::bad_alloc, or DeviceOutOfMemory
/// on a GPU.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t size_bytes, Device device = {}, Overflow overflow = Overflow::none);

  std::byte* data() const { return data_.get(); }
  std::size_t size_bytes() const { return size_bytes_; }
  Device device() const { return device_; }
  bool overflowed() const { return data_.get_deleter().place == Place::pinned; }
  void zero();

 private:
  enum class Place : std::uint8_t { host, device, pinned };
  struct Free {
    Place place = Place::host;
    void operator()(std::byte* pointer) const noexcept;
  };
  std::unique_ptr<std::byte, Free> data_{nullptr, Free{}};
  std::size_t size_bytes_ = 0;
  Device device_{};
};

/// Owner of one packed array; view() is good as long as it lives.
template <class T, int Rank>
class Array {
 public:
  Array() = default;
  explicit Array(std::array<std::int64_t, Rank> shape, Device device = {})
      : buffer_(bytes_of(shape), device), shape_(shape) {}
  View<T, Rank> view() const { return {reinterpret_cast<T*>(buffer_.data()), shape_, buffer_.device()}; }
  void zero() { buffer_.zero(); }
  std::size_t size_bytes() const { return buffer_.size_bytes(); }

 private:
  static std::size_t bytes_of(const std::array<std::int64_t, Rank>& shape) {
    std::int64_t count = 1;
    for (const std::int64_t extent : shape) count *= extent;
    return static_cast<std::size_t>(count) * sizeof(T);
  }

  Buffer buffer_;
  std::array<std::int64_t, Rank> shape_{};
};

/// Hands out memory that lives until the enclosing Scope ends. It grows to the largest need seen and keeps
/// it, so that a steady workload allocates nothing. The contents are undefined. One thread at a time.
class Arena {
 public:
  explicit Arena(Device device = {}, Overflow overflow = Overflow::none)
      : device_(device), overflow_(overflow) {}

  template <class T, int Rank>
  View<T, Rank> take(std::array<std::int64_t, Rank> shape) {
    std::int64_t count = 1;
    for (const std::int64_t extent : shape) count *= extent;
    return {static_cast<T*>(take_bytes(static_cast<std::size_t>(count) * sizeof(T))), shape, device_};
  }
  std::size_t high_water_bytes() const { return high_water_bytes_; }
  /// Of a GPU's, what lies in the host's memory.
  std::size_t overflow_bytes() const;
  Device device() const { return device_; }

  /// Gives back, on destruction, everything taken since construction.
  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), block_(arena.block_), used_(arena.used_bytes_) {}
    ~Scope() { arena_.release_to(block_, used_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    std::size_t block_;
    std::size_t used_;
  };

 private:
  void* take_bytes(std::size_t size_bytes);
  void release_to(std::size_t block, std::size_t used_bytes);

  Device device_;
  Overflow overflow_;
  std::vector<Buffer> blocks_;
  std::size_t block_ = 0;       // index of the block in use
  std::size_t used_bytes_ = 0;  // of that block
  std::size_t high_water_bytes_ = 0;
};

}  // namespace longstrand
