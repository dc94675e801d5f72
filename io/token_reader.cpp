#include "io/token_reader.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <utility>

#include "io/input_error.hpp"

namespace longstrand::io {
namespace {

constexpr std::size_t kPieceBases = std::size_t{1} << 16;  // stays in L2 between reading and tokenising

class WholeRecords final : public TokenReader {
 public:
  WholeRecords(const std::vector<ChunkInput>& inputs, Ambiguous ambiguous)
      : inputs_(inputs), ambiguous_(ambiguous), alphabet_(ambiguous), piece_(kPieceBases) {
    if (std::ranges::any_of(inputs, [](const ChunkInput& each) { return each.size < 0; })) return;
    for (const ChunkInput& each : inputs) total_size_ += each.size;
  }

  double share_read() const override {
    if (total_size_ == 0) return SequenceSource::kUnknownShare;
    const double of_input = source_ ? source_->share_read() : 0;
    if (of_input < 0) return SequenceSource::kUnknownShare;
    const double of_size = source_ ? of_input * static_cast<double>(input().size) : 0;
    return (static_cast<double>(passed_size_) + of_size) / static_cast<double>(total_size_);
  }

 private:
  bool begin_next_record(TokenRecord& record) override {
    while (file_index_ < std::ssize(inputs_)) {
      if (!source_) source_ = input().open();
      if (source_->next_record(current_.info)) {
        ++current_.index;
        current_.file_index = file_index_;
        position_ = current_.info.begin;
        record = current_;
        return true;
      }
      source_.reset();
      passed_size_ += input().size;
      ++file_index_;
    }
    return false;
  }

  std::int64_t read_tokens(std::span<std::uint8_t> tokens, std::span<std::uint8_t> soft_mask) override {
    assert(tokens.size() == soft_mask.size());
    std::size_t filled = 0;
    while (source_ && filled < tokens.size()) {
      const std::size_t wanted = std::min(kPieceBases, tokens.size() - filled);
      const auto count = static_cast<std::size_t>(source_->read_bases(std::span(piece_).first(wanted)));
      if (count == 0) break;
      const auto bases = std::span(piece_).first(count);
      const auto bad = alphabet_.tokenize(bases, tokens.subspan(filled), soft_mask.subspan(filled));
      if (bad) fail_at(position_ + *bad, bases[static_cast<std::size_t>(*bad)]);
      position_ += static_cast<std::int64_t>(count);
      filled += count;
    }
    return static_cast<std::int64_t>(filled);
  }

  const ChunkInput& input() const { return inputs_[static_cast<std::size_t>(file_index_)]; }

  [[noreturn]] void fail_at(std::int64_t position, char base) const {
    const auto byte = static_cast<unsigned char>(base);
    const std::string shown =
        byte > ' ' && byte <= '~' ? fmt::format("'{}'", base) : fmt::format("byte 0x{:02x}", byte);
    throw InputError(fmt::format(
        "{}: record '{}', position {}: {} is not {}", input().path, current_.info.name, position + 1, shown,
        ambiguous_ == Ambiguous::error ? "one of A C G T U N" : "a nucleotide code"));
  }

  const std::vector<ChunkInput>& inputs_;
  Ambiguous ambiguous_;
  Alphabet alphabet_;
  std::vector<char> piece_;
  std::unique_ptr<SequenceSource> source_;  // of inputs_[file_index_]; opened when first needed
  std::int64_t file_index_ = 0;
  std::int64_t total_size_ = 0;   // of all inputs; 0 where that is unknown
  std::int64_t passed_size_ = 0;  // of those before inputs_[file_index_]
  TokenRecord current_;
  std::int64_t position_ = 0;  // of the next base, in the named sequence
};

// Keeps one window of tokens; the overlap with the next one moves to its front.
class Windows final : public TokenReader {
 public:
  Windows(std::unique_ptr<TokenReader> records, const ChunkStreamOptions& options)
      : records_(std::move(records)),
        window_(static_cast<std::size_t>(options.window)),
        stride_(static_cast<std::size_t>(options.stride > 0 ? options.stride : options.window)),
        min_window_(static_cast<std::size_t>(options.min_window)) {}

  double share_read() const override { return records_->share_read(); }

 private:
  bool begin_next_record(TokenRecord& record) override {
    while (have_record_ || (have_record_ = begin_record())) {
      if (fill()) {
        record.info = record_.info;
        record.info.begin = record_.info.begin + begin_;
        record.info.length = static_cast<std::int64_t>(filled_);
        record.file_index = record_.file_index;
        record.index = ++index_;
        delivered_ = 0;
        return true;
      }
      have_record_ = false;
    }
    return false;
  }

  std::int64_t read_tokens(std::span<std::uint8_t> tokens, std::span<std::uint8_t> soft_mask) override {
    const std::size_t count = std::min(filled_ - delivered_, tokens.size());
    std::copy_n(tokens_.begin() + static_cast<std::ptrdiff_t>(delivered_), count, tokens.begin());
    std::copy_n(soft_mask_.begin() + static_cast<std::ptrdiff_t>(delivered_), count, soft_mask.begin());
    delivered_ += count;
    return static_cast<std::int64_t>(count);
  }

  bool begin_record() {
    filled_ = 0;
    first_ = true;
    ended_ = false;
    begin_ = 0;
    return records_->next_record(record_);
  }

  // Moves to the next window of the current record; false if there is none.
  bool fill() {
    if (ended_) return false;
    std::size_t kept = 0;
    if (!first_) {
      kept = advance();
      begin_ += static_cast<std::int64_t>(stride_);
    }
    filled_ = kept + read_more(kept, window_ - kept);
    ended_ = filled_ < window_;
    const bool adds_bases = filled_ > kept;
    const bool long_enough = filled_ >= min_window_;
    const bool is_new = first_ || adds_bases;
    first_ = false;
    return is_new && long_enough;
  }

  // Passes stride_ bases; returns how many of the window's were kept, at its front.
  std::size_t advance() {
    if (stride_ >= window_) {
      for (std::size_t left = stride_ - window_; left > 0;) {
        const std::size_t count = read_more(0, std::min(left, window_));
        if (count == 0) break;
        left -= count;
      }
      return 0;
    }
    const auto stride = static_cast<std::ptrdiff_t>(stride_);
    std::copy(tokens_.begin() + stride, tokens_.end(), tokens_.begin());
    std::copy(soft_mask_.begin() + stride, soft_mask_.end(), soft_mask_.begin());
    return window_ - stride_;
  }

  // Fewer at the record's end. The buffers grow with what there is to read: a window may be far longer.
  std::size_t read_more(std::size_t at, std::size_t count) {
    constexpr std::size_t kLeast = 65536;
    const std::size_t end = at + count;
    std::size_t filled = at;
    while (filled < end) {
      const std::size_t room = std::min(end - filled, std::max(filled, kLeast));
      if (tokens_.size() < filled + room) {
        tokens_.resize(filled + room);
        soft_mask_.resize(filled + room);
      }
      const std::int64_t read = records_->read(std::span(tokens_).subspan(filled, room),
                                               std::span(soft_mask_).subspan(filled, room));
      filled += static_cast<std::size_t>(read);
      if (static_cast<std::size_t>(read) < room) break;
    }
    return filled - at;
  }

  std::unique_ptr<TokenReader> records_;
  std::size_t window_;
  std::size_t stride_;
  std::size_t min_window_;
  std::vector<std::uint8_t> tokens_;     // at most [window]
  std::vector<std::uint8_t> soft_mask_;  // at most [window]
  TokenRecord record_;
  std::int64_t index_ = -1;
  std::int64_t begin_ = 0;     // of the window, in the bases delivered of the record
  std::size_t filled_ = 0;     // tokens of the current window
  std::size_t delivered_ = 0;  // of these, handed out
  bool have_record_ = false;
  bool first_ = true;   // no window of this record yet
  bool ended_ = false;  // the record's bases are all read
};

}  // namespace

bool TokenReader::next_record(TokenRecord& record) {
  const bool more = begin_next_record(record);
  if (tokens_read_ == 0) share_before_ = share_read();
  return more;
}

std::int64_t TokenReader::read(std::span<std::uint8_t> tokens, std::span<std::uint8_t> soft_mask) {
  const std::int64_t count = read_tokens(tokens, soft_mask);
  tokens_read_ += count;
  return count;
}

std::int64_t TokenReader::expected_tokens() const {
  const double share = share_read();
  if (tokens_read_ == 0 || share_before_ < 0 || share <= share_before_) return -1;
  return std::llround(static_cast<double>(tokens_read_) * (1 - share_before_) / (share - share_before_));
}

std::unique_ptr<TokenReader> make_token_reader(const std::vector<ChunkInput>& inputs,
                                               const ChunkStreamOptions& options) {
  std::unique_ptr<TokenReader> records = std::make_unique<WholeRecords>(inputs, options.ambiguous);
  if (options.window > 0) return std::make_unique<Windows>(std::move(records), options);
  return records;
}

}  // namespace longstrand::io
