// The records of several inputs, one after another, as tokens: whole, or cut into windows. Used by
// ChunkStream.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "io/alphabet.hpp"
#include "io/chunk_stream.hpp"
#include "io/sequence_source.hpp"

namespace longstrand::io {

struct TokenRecord {
  RecordInfo info;
  std::int64_t index = -1;       // of the record, or window, from 0 over all inputs
  std::int64_t file_index = -1;  // of its input
};

class TokenReader {
 public:
  TokenReader() = default;
  TokenReader(const TokenReader&) = delete;
  TokenReader& operator=(const TokenReader&) = delete;
  virtual ~TokenReader() = default;

  // As SequenceSource::next_record.
  bool next_record(TokenRecord& record);

  // The next tokens of the current record; fills both spans (of one size) unless the record ends. Returns
  // their number, 0 at the end of the record. Throws InputError naming file, record and position of an
  // invalid base.
  std::int64_t read(std::span<std::uint8_t> tokens, std::span<std::uint8_t> soft_mask);

  // About the tokens of all records but those that were passed over before the first read(), from the share
  // of the input read so far; -1 where that is unknown.
  std::int64_t expected_tokens() const;

  // As SequenceSource::share_read, of all inputs.
  virtual double share_read() const = 0;

 private:
  virtual bool begin_next_record(TokenRecord& record) = 0;
  virtual std::int64_t read_tokens(std::span<std::uint8_t> tokens, std::span<std::uint8_t> soft_mask) = 0;

  std::int64_t tokens_read_ = 0;
  double share_before_ = 0;  // the tokens of the first record that was read
};

// Whole records, or windows if options.window > 0. inputs must outlive the reader.
std::unique_ptr<TokenReader> make_token_reader(const std::vector<ChunkInput>& inputs,
                                               const ChunkStreamOptions& options);

}  // namespace longstrand::io
