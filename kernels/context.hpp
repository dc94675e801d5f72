// What an operation runs on. On a CPU an operation runs on the calling thread alone; threads share the work
// one level up, layer by layer (kernels/wavefront.hpp), so every thread has a Context of its own.
#pragma once

#include "kernels/memory.hpp"
#include "kernels/view.hpp"

namespace longstrand {

struct Context {
  explicit Context(Device where = {}) : device(where), scratch(where) {}

  Device device;
  Arena scratch;  // temporary memory of operations; take it inside an Arena::Scope
};

}  // namespace longstrand
