#include "kernels/cuda_graph.hpp"
#include "kernels/cuda_session.cuh"

namespace longstrand::cuda {
namespace {

/// A stream records from construction to end(), or to destruction where an operation threw.
class Recording {
 public:
  explicit Recording(cudaStream_t stream) : stream_(stream) {
    // Other threads may allocate meanwhile; this one may not: replays would use memory that it frees.
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "begin to record");
  }
  ~Recording() {
    if (!ended_) {
      cudaStreamEndCapture(stream_, &recorded_);
      cudaGetLastError();  // what broke the recording has been thrown
    }
    if (recorded_) cudaGraphDestroy(recorded_);
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  /// Good as long as the Recording lives.
  cudaGraph_t end() {
    ended_ = true;
    check(cudaStreamEndCapture(stream_, &recorded_), "record operations");
    return recorded_;
  }

 private:
  cudaStream_t stream_;
  cudaGraph_t recorded_ = nullptr;
  bool ended_ = false;
};

}  // namespace

class Graph {
 public:
  explicit Graph(cudaGraph_t recorded) {
    check(cudaGraphInstantiate(&executable_, recorded, 0), "prepare recorded operations");
  }
  ~Graph() { cudaGraphExecDestroy(executable_); }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  cudaGraphExec_t executable() const { return executable_; }

 private:
  cudaGraphExec_t executable_ = nullptr;
};

void destroy(Graph* graph) noexcept { delete graph; }

GraphPtr capture(const std::function<void()>& operations, Context& context) {
  const cudaStream_t stream = stream_of(context);
  Recording recording(stream);
  operations();
  GraphPtr graph(new Graph(recording.end()));
  check(cudaGraphUpload(graph->executable(), stream), "upload recorded operations");
  return graph;
}

void launch(const Graph& graph, Context& context) {
  check(cudaGraphLaunch(graph.executable(), stream_of(context)), "replay operations");
}

}  // namespace longstrand::cuda
