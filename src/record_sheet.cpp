#include "src/record_sheet.hpp"

#include <algorithm>
#include <cassert>

#include "kernels/transfer.hpp"
#include "src/vocabulary.hpp"

namespace longstrand {
namespace {

std::int64_t ceil_div(std::int64_t count, std::int64_t size) { return (count + size - 1) / size; }

}  // namespace

void RecordSheet::start(std::span<const std::int64_t> lengths, int strands, std::int64_t most_tokens,
                        bool with_targets) {
  assert(!lengths.empty() && (strands == 1 || strands == 2));
  strands_ = strands;
  length_.clear();
  for (const std::int64_t length : lengths) length_.insert(length_.end(), strands, length);
  const std::int64_t longest = std::max<std::int64_t>(std::ranges::max(lengths), 1);
  chunks_ = ceil_div(longest, std::max<std::int64_t>(most_tokens / std::ssize(lengths), 1));
  chunk_tokens_ = ceil_div(longest, chunks_);
  valid_.resize(static_cast<std::size_t>(chunks_ * lanes()));
  ends_.resize(valid_.size());
  for (std::int64_t chunk = 0; chunk < chunks_; ++chunk) {
    for (std::int64_t lane = 0; lane < lanes(); ++lane) {
      const std::int64_t left = std::max<std::int64_t>(length_[lane] - chunk * chunk_tokens_, 0);
      valid_[chunk * lanes() + lane] = std::min(left, chunk_tokens_);
      ends_[chunk * lanes() + lane] = left > 0 && left <= chunk_tokens_;
    }
  }
  const auto size = static_cast<std::size_t>(chunks_ * lanes() * chunk_tokens_);
  tokens_.assign(size, kPaddingToken);
  targets_.assign(with_targets ? size : 0, kNoTarget);
}

std::int64_t RecordSheet::index_of(std::int64_t lane, std::int64_t position) const {
  const std::int64_t chunk = position / chunk_tokens_;
  return (chunk * lanes() + lane) * chunk_tokens_ + position % chunk_tokens_;
}

/// `convert(value, other_strand)`. Run by run, as chunks end.
template <class E, class Convert>
void RecordSheet::write_strands(std::int64_t record, std::int64_t begin, std::span<const std::uint8_t> values,
                                std::vector<E>& to, Convert convert) const {
  const std::int64_t lane = record * strands_, count = std::ssize(values);
  assert(begin >= 0 && begin + count <= length_[lane]);
  for (std::int64_t i = 0; i < count;) {
    const std::int64_t position = begin + i;
    const std::int64_t run = std::min(count - i, chunk_tokens_ - position % chunk_tokens_);
    E* out = to.data() + index_of(lane, position);
    for (const std::int64_t end = i + run; i < end; ++i) *out++ = convert(values[i], false);
  }
  if (strands_ == 1) return;
  for (std::int64_t i = 0; i < count;) {
    const std::int64_t position = length_[lane] - 1 - begin - i;
    const std::int64_t run = std::min(count - i, position % chunk_tokens_ + 1);
    E* out = to.data() + index_of(lane + 1, position);
    for (const std::int64_t end = i + run; i < end; ++i) *out-- = convert(values[i], true);
  }
}

void RecordSheet::write(std::int64_t record, std::int64_t begin, std::span<const std::uint8_t> tokens) {
  write_strands(record, begin, tokens, tokens_, [](std::uint8_t token, bool other_strand) {
    return other_strand ? complement(token) : token;
  });
}

void RecordSheet::write_targets(std::int64_t record, std::int64_t begin,
                                std::span<const std::uint8_t> targets) {
  write_strands(record, begin, targets, targets_, [](std::uint8_t target, bool other_strand) -> std::int32_t {
    if (target == kNoTargetToken) return kNoTarget;
    return other_strand ? complement(target) : target;
  });
}

SheetView RecordSheet::upload(Arena& arena, Context& context) const {
  const std::array shape = {chunks_, lanes(), chunk_tokens_};
  const auto on_device = [&]<class E, int Rank>(const View<const E, Rank>& view) {
    return longstrand::upload(view, arena, context);
  };
  SheetView view;
  view.tokens = on_device(View<const std::uint8_t, 3>(tokens_.data(), shape));
  if (!targets_.empty()) view.targets = on_device(View<const std::int32_t, 3>(targets_.data(), shape));
  view.valid = on_device(View<const std::int64_t, 2>(valid_.data(), {chunks_, lanes()}));
  view.ends = on_device(View<const std::uint8_t, 2>(ends_.data(), {chunks_, lanes()}));
  view.length = on_device(View<const std::int64_t, 1>(length_.data(), {lanes()}));
  return view;
}

}  // namespace longstrand
