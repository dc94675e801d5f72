// What an operation runs on. On a CPU an operation runs on the calling thread alone; threads share the work
// one level up, layer by layer (kernels/wavefront.hpp), so every thread has a Context of its own. On a GPU an
// operation is put on the Context's stream and returns before it is done.
#pragma once

#include "kernels/cuda_runtime.hpp"
#include "kernels/memory.hpp"
#include "kernels/view.hpp"

namespace longstrand {

struct Context {
  explicit Context(Device where = {});

  /// Returns when all operations have been done; throws what went wrong in them.
  void synchronize();

  Device device;
  cuda::SessionPtr session;  // on a GPU
  Arena scratch;             // temporary memory of operations; take it inside an Arena::Scope
};

}  // namespace longstrand
