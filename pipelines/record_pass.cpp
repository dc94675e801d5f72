#include "pipelines/record_pass.hpp"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>

#include "io/input_error.hpp"
#include "pipelines/both_strands.hpp"
#include "pipelines/interrupt.hpp"
#include "pipelines/logging.hpp"
#include "pipelines/progress.hpp"

namespace longstrand::pipelines {

io::ChunkStreamOptions chunks_for(const Inference& inference, const RecordPass& pass,
                                  std::int64_t skip_records) {
  const std::int64_t tokens = inference.preferred_chunk_tokens();
  const std::int64_t lanes = inference.preferred_lanes();
  if (lanes == 1) return {.chunk_tokens = tokens, .skip_records = skip_records};
  // Both strands of a bundle are computed at once.
  return {.chunk_tokens = pass.both_strands ? (tokens + 1) / 2 : tokens,
          .bundle = pass.both_strands ? std::max<std::int64_t>(lanes / 2, 1) : lanes,
          .skip_records = skip_records};
}

void run_records(Inference& inference, io::ChunkStream stream, const RecordPass& pass,
                 const std::function<void(const ChunkResult&)>& deliver) {
  BatchReader reader(std::move(stream));
  BothStrands strands(reader);
  Progress progress(pass.label);
  const std::int64_t strands_read = pass.both_strands ? 2 : 1;
  std::int64_t records = 0;  // of every strand read, as bases
  std::int64_t bases = 0;
  const auto start = std::chrono::steady_clock::now();
  const auto next = [&](TokenBatch& batch) {
    stop_if_interrupted(pass.resumable);
    const bool more = pass.both_strands ? strands.next(batch) : reader.next(batch);
    if (!more) stop_if_interrupted(pass.resumable);  // which ends standard input
    return more;
  };
  try {
    inference.run(next, [&](const ChunkResult& result) {
      deliver(result);
      bases += std::accumulate(result.batch.valid.begin(), result.batch.valid.end(), std::int64_t{0});
      records += std::ranges::count(result.batch.ends, 1);
      const std::int64_t expected = strands_read * origin_of(result.batch).expected_tokens;
      const double share = static_cast<double>(bases) / static_cast<double>(expected);
      progress.update(bases / strands_read, expected > 0 ? std::min(share, 1.0) : Progress::kUnknown);
    });
  } catch (const io::InputError&) {
    stop_if_interrupted(pass.resumable);
    throw;
  }
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  records /= strands_read;
  bases /= strands_read;
  spdlog::info("{} records, {} bases in {:.1f} s: {}bases/s", records, bases, elapsed.count(),
               with_unit_prefix(static_cast<double>(bases) / elapsed.count()));
}

}  // namespace longstrand::pipelines
