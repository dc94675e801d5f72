// Results on their way from a GPU to the host, which goes on meanwhile.
#pragma once

#include "kernels/context.hpp"
#include "kernels/memory.hpp"
#include "kernels/view.hpp"

namespace longstrand {

namespace detail {
/// Host memory that a GPU writes to, and an event that says when it has.
class Landing {
 public:
  void* start(const void* from, std::size_t size_bytes, Context& context);
  void wait();

 private:
  cuda::PinnedMemory pinned_;
  std::size_t pinned_bytes_ = 0;
  Buffer ordinary_;  // where no pinned memory is to be had
  cuda::EventPtr event_;
};
}  // namespace detail

/// A copy of a packed view on the host; on a CPU the view itself. One copy is under way at a time.
template <class T, int Rank>
class Readback {
 public:
  /// Puts the copy behind the operations so far.
  void start(const View<const T, Rank>& from, Context& context) {
    assert(from.packed());
    view_ = from;
    if (context.device.kind == DeviceKind::cpu) return;
    const std::size_t size_bytes = static_cast<std::size_t>(from.size()) * sizeof(T);
    view_ = {static_cast<const T*>(landing_.start(from.data, size_bytes, context)), from.shape};
    under_way_ = true;
  }
  void clear() { view_ = {}; }
  /// What was started last, when it has arrived; good until the next start(). Empty before the first start()
  /// and after clear().
  View<const T, Rank> wait() {
    if (under_way_) landing_.wait();
    under_way_ = false;
    return view_;
  }

 private:
  View<const T, Rank> view_;
  detail::Landing landing_;
  bool under_way_ = false;
};

}  // namespace longstrand
