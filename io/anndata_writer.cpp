#include "io/anndata_writer.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cassert>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>

#include "io/anndata_layout.hpp"
#include "io/atomic_file.hpp"
#include "io/obs_block.hpp"
#include "io/utf8.hpp"

namespace longstrand::io {
namespace {

std::string partial_path(const std::string& path) { return path + ".partial"; }
std::string journal_path(const std::string& path) { return partial_path(path) + ".obs"; }
std::string layout_path(const std::string& path) { return partial_path(path) + ".h5"; }

// Found out before the partial files are made.
std::string destination_of(const std::string& path) {
  auto destination = follow_link(path);
  require_not_directory(destination);
  if (is_stream(destination)) {
    throw std::runtime_error("cannot create '" + path + "': it is a device or pipe, and HDF5 needs a file");
  }
  return destination;
}

Journal::Open how_to_open(const std::string& path, AnnDataWriter::Start start) {
  std::error_code ignored;
  return start == AnnDataWriter::Start::kResume && std::filesystem::exists(partial_path(path), ignored)
             ? Journal::Open::kContinue
             : Journal::Open::kCreate;
}

void remove_partial_files(const std::string& path) {
  remove_quietly(partial_path(path));
  remove_quietly(journal_path(path));
}

constexpr const char* kJournalFormat = "longstrand embeddings journal 1";

std::uint32_t crc(std::uint32_t start, const void* bytes, std::size_t count) {
  return static_cast<std::uint32_t>(crc32_z(start, static_cast<const Bytef*>(bytes), count));
}

// The journal's first record: what the rows behind it belong to.
std::string describe(const AnnDataSettings& settings, std::int64_t x_offset) {
  return nlohmann::json{{"format", kJournalFormat},
                        {"rows", settings.rows == RowKind::kPooled ? "pooled" : "tokens"},
                        {"n_var", settings.n_var},
                        {"fingerprint", to_utf8(settings.fingerprint)},
                        {"x_offset", x_offset}}
      .dump();
}

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

// Copies bytes [begin, end) to the same place in another file.
void copy_range(const FileDescriptor& from, FileDescriptor& to, std::int64_t begin, std::int64_t end) {
  std::vector<std::byte> buffer(1 << 20);
  while (begin < end) {
    const auto count = std::min(end - begin, std::ssize(buffer));
    const auto part = std::span(buffer).first(static_cast<std::size_t>(count));
    if (from.read_at(part, begin) < count) {
      throw std::runtime_error(fmt::format("'{}' changed while it was being read", from.path()));
    }
    to.write_at(part, begin);
    begin += count;
  }
}

}  // namespace

AnnDataWriter::AnnDataWriter(const std::string& path, AnnDataSettings settings, Start start)
    : path_(destination_of(path)),
      settings_(std::move(settings)),
      journal_(journal_path(path_), how_to_open(path_, start)),
      rows_file_(partial_path(path_), O_RDWR | O_CREAT) {
  assert(settings_.n_var > 0);
  if (resume()) {
    return;
  }
  try {
    start_fresh();
  } catch (...) {
    remove_partial_files(path_);
    throw;
  }
}

AnnDataWriter::~AnnDataWriter() {
  if (!finished_ && rows_ == 0) {
    remove_partial_files(path_);
  }
}

void AnnDataWriter::start_fresh() {
  {
    AnnDataLayout probe(rows_file_.path(), 1, settings_.n_var);
    x_offset_ = probe.x_offset();
    probe.close();
  }
  rows_file_.truncate(0);
  journal_.seek(0);
  journal_.truncate_here();
  journal_.append(bytes_of(describe(settings_, x_offset_)));
  first_block_ = journal_.position();
}

// False when the journal holds nothing that was ever complete.
bool AnnDataWriter::resume() {
  std::string record;
  if (!journal_.read(&record)) {
    return false;
  }
  const auto there = nlohmann::json::parse(record, nullptr, /*allow_exceptions=*/false);
  x_offset_ = there.is_object() ? there.value("x_offset", std::int64_t{0}) : 0;
  if (record != describe(settings_, x_offset_)) {
    throw std::runtime_error(
        fmt::format("cannot resume '{}': it was begun with other settings; repeat those, or start afresh",
                    rows_file_.path()));
  }
  first_block_ = journal_.position();
  for (auto good = first_block_; journal_.read(&record); good = journal_.position()) {
    const auto block = decode(record);
    const auto count = count_rows(settings_.rows, block.obs);
    if (!rows_match(count, block.checksum)) {
      journal_.seek(good);
      break;
    }
    rows_ += count;
  }
  journal_.truncate_here();
  rows_file_.truncate(end_of_rows());
  return true;
}

// Whether the `count` rows behind the accepted ones are in the file, with this checksum.
bool AnnDataWriter::rows_match(std::int64_t count, std::uint32_t checksum) const {
  std::vector<std::byte> buffer(1 << 20);
  std::uint32_t sum = 0;
  const auto begin = end_of_rows();
  const auto end = begin + count * row_bytes();
  for (auto at = begin; at < end;) {
    const auto part =
        std::span(buffer).first(static_cast<std::size_t>(std::min(end - at, std::ssize(buffer))));
    if (rows_file_.read_at(part, at) < std::ssize(part)) {
      return false;
    }
    sum = crc(sum, part.data(), part.size());
    at += std::ssize(part);
  }
  return sum == checksum;
}

void AnnDataWriter::append(std::span<const ObsRow> obs, std::span<const float> values) {
  const auto count = count_rows(settings_.rows, obs);
  assert(std::ssize(values) == count * settings_.n_var);
  if (count == 0) {
    return;
  }
  try {
    rows_file_.write_at(std::as_bytes(values), end_of_rows());
    journal_.append(bytes_of(encode(crc(0, values.data(), values.size_bytes()), obs)));
  } catch (const std::runtime_error& error) {
    if (rows_ == 0) {
      throw;
    }
    throw std::runtime_error(
        fmt::format("{}; the {} rows before are kept and can be resumed", error.what(), rows_));
  }
  rows_ += count;
}

void AnnDataWriter::flush() {
  rows_file_.sync();
  journal_.sync();
}

void AnnDataWriter::finish() {
  const auto layout = layout_path(path_);
  try {
    write_layout(layout);
    graft(layout);
  } catch (...) {
    remove_quietly(layout);
    throw;
  }
  remove_quietly(layout);
  replace_file(rows_file_.path(), path_);
  remove_quietly(journal_path(path_));
  finished_ = true;
}

void AnnDataWriter::write_layout(const std::string& layout_path) {
  AnnDataLayout layout(layout_path, rows_, settings_.n_var);
  if (rows_ > 0 && layout.x_offset() != x_offset_) {
    throw std::runtime_error(fmt::format(
        "cannot complete '{}': it was begun with another version of HDF5; finish it with that one, or "
        "start afresh",
        rows_file_.path()));
  }
  journal_.seek(first_block_);
  std::string record;  // holds the names that the rows of one step point to
  layout.write_annotations(settings_, [&](std::vector<ObsRow>* rows) {
    if (!journal_.read(&record)) {
      return false;
    }
    *rows = decode(record).obs;
    return true;
  });
  layout.close();
}

// Puts everything but X from the layout file around the rows.
void AnnDataWriter::graft(const std::string& layout_path) {
  const FileDescriptor layout(layout_path, O_RDONLY);
  const auto size = layout.size();
  const auto x_begin = rows_ > 0 ? x_offset_ : 0;
  const auto x_end = x_begin + rows_ * row_bytes();
  copy_range(layout, rows_file_, 0, x_begin);
  copy_range(layout, rows_file_, x_end, size);
  rows_file_.truncate(size);
  rows_file_.sync();
}

}  // namespace longstrand::io
