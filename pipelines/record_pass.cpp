#include "pipelines/record_pass.hpp"

#include <chrono>
#include <utility>

#include "pipelines/both_strands.hpp"
#include "pipelines/interrupt.hpp"
#include "pipelines/logging.hpp"
#include "pipelines/progress.hpp"

namespace longstrand::pipelines {

void run_records(Inference& inference, io::ChunkStream stream, const RecordPass& pass,
                 const std::function<void(const ChunkResult&)>& deliver) {
  BatchReader reader(std::move(stream));
  BothStrands strands(reader);
  Progress progress(pass.label);
  std::int64_t records = 0;
  std::int64_t bases = 0;
  const auto start = std::chrono::steady_clock::now();
  inference.run(
      [&](TokenBatch& batch) {
        stop_if_interrupted(pass.resumable);
        return pass.both_strands ? strands.next(batch) : reader.next(batch);
      },
      [&](const ChunkResult& result) {
        deliver(result);
        bases += result.batch.valid[0];
        records += result.batch.ends[0];
        progress.update(bases);
      });
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  spdlog::info("{} records, {} bases in {:.1f} s: {}bases/s", records, bases, elapsed.count(),
               with_unit_prefix(static_cast<double>(bases) / elapsed.count()));
}

}  // namespace longstrand::pipelines
