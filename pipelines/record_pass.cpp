#include "pipelines/record_pass.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <utility>
#include <vector>

#include "io/input_error.hpp"
#include "pipelines/interrupt.hpp"
#include "pipelines/logging.hpp"
#include "pipelines/progress.hpp"

namespace longstrand::pipelines {

io::ChunkStreamOptions chunks_for(const Inference& inference, const RecordPass& pass,
                                  std::int64_t skip_records) {
  const std::int64_t tokens = inference.preferred_chunk_tokens();
  const std::int64_t lanes = inference.preferred_lanes();
  if (lanes == 1) return {.chunk_tokens = tokens, .skip_records = skip_records};
  // All copies of a bundle are computed at once.
  const std::int64_t copies = pass.copies.copies();
  return {.chunk_tokens = (tokens + copies - 1) / copies,
          .bundle = std::max<std::int64_t>(lanes / copies, 1),
          .skip_records = skip_records};
}

void run_records(Inference& inference, io::ChunkStream stream, const RecordPass& pass,
                 const std::function<void(const ChunkResult&)>& deliver) {
  BatchReader reader(std::move(stream));
  RecordCopies record_copies(reader, pass.copies);
  Progress progress(pass.label);
  const std::int64_t copies = pass.copies.copies();
  // Of every copy:
  std::int64_t records = 0, bases = 0;      // delivered
  std::int64_t shown = 0;                   // bases; never fewer than before
  std::atomic<std::int64_t> expected = -1;  // bases in all; chunks may be taken while others are delivered
  const auto show = [&](std::int64_t ahead) {
    shown = std::max(shown, bases + ahead);
    const double share = static_cast<double>(shown) / static_cast<double>(expected);
    progress.update(shown / copies, expected > 0 ? std::min(share, 1.0) : Progress::kUnknown);
  };
  const auto start = std::chrono::steady_clock::now();
  const auto next = [&](TokenBatch& batch) {
    stop_if_interrupted(pass.resumable);
    const bool more = record_copies.next(batch);
    if (!more) {
      stop_if_interrupted(pass.resumable);  // which ends standard input
      return false;
    }
    expected = copies * origin_of(batch).expected_tokens;
    return true;
  };
  const auto take_result = [&](const ChunkResult& result) {
    deliver(result);
    bases += std::accumulate(result.batch.valid.begin(), result.batch.valid.end(), std::int64_t{0});
    records += std::ranges::count(result.batch.ends, 1);
    show(/*ahead=*/0);
  };
  const auto poll = [&](std::int64_t computed) {
    stop_if_interrupted(pass.resumable);
    show(/*ahead=*/computed);
  };
  try {
    inference.run(next, take_result, poll);
  } catch (const io::InputError&) {
    stop_if_interrupted(pass.resumable);
    throw;
  }
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  records /= copies;
  bases /= copies;
  spdlog::info("{} records, {} bases in {:.1f} s: {}bases/s", records, bases, elapsed.count(),
               with_unit_prefix(static_cast<double>(bases) / elapsed.count()));
}

std::function<void(const ChunkResult&)> for_each_mean(
    const CopyRule& rule,
    std::function<void(const ChunkResult& result, std::int64_t lane, std::span<const float> values)> add) {
  const std::int64_t copies = rule.copies();
  return for_each_record([add = std::move(add), copies, copy = std::int64_t{0}, mean = std::vector<float>()](
                             const ChunkResult& result, std::int64_t lane) mutable {
    mean.resize(static_cast<std::size_t>(result.records.shape[1]));
    if (copy == 0) std::ranges::fill(mean, 0.0F);
    std::transform(mean.begin(), mean.end(), result.records.at(lane), mean.begin(), std::plus<>());
    if (++copy < copies) return;
    for (float& value : mean) value /= static_cast<float>(copies);
    add(result, lane, mean);
    copy = 0;
  });
}

}  // namespace longstrand::pipelines
