// Operations recorded once and replayed on a GPU: one call of the host for all of them, and less time between
// one kernel and the next. No CUDA headers; callers stand behind `if constexpr (kCudaBuilt)`.
#pragma once

#include <functional>

#include "kernels/context.hpp"

namespace longstrand::cuda {

class Graph;
void destroy(Graph* graph) noexcept;
using GraphPtr = Handle<Graph>;

/// Calls `operations`, of which nothing is done: what they put on the context's stream is recorded. They must
/// be such as neither wait for the device nor allocate on it, or std::runtime_error is thrown; the context
/// can be used on. Call them before without recording until their scratch memory no longer grows.
GraphPtr capture(const std::function<void()>& operations, Context& context);

/// Puts them on the stream again, with the same views: what these show, scratch memory of the recording
/// included, must still be there and of no other use.
void launch(const Graph& graph, Context& context);

}  // namespace longstrand::cuda
