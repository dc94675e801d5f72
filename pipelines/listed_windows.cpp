#include "pipelines/listed_windows.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <utility>

#include "io/input_error.hpp"

namespace longstrand::pipelines {

std::int64_t bases_of(const WindowList& windows) {
  std::int64_t bases = 0;
  for (const auto& [index, listed] : windows) {
    for (const ListedWindow& window : listed.windows) bases += window.end - window.begin;
  }
  return bases;
}

ListedWindows::ListedWindows(std::unique_ptr<io::SequenceSource> source, WindowList windows, std::string path)
    : source_(std::move(source)),
      windows_(std::move(windows)),
      path_(std::move(path)),
      total_bases_(bases_of(windows_)) {
  for (const auto& [index, listed] : windows_) {
    const bool sorted = std::ranges::is_sorted(listed.windows, {}, &ListedWindow::begin);
    const bool not_empty = std::ranges::all_of(listed.windows, [](const ListedWindow& window) {
      return 0 <= window.begin && window.begin < window.end;
    });
    if (!sorted || !not_empty)
      throw std::invalid_argument("the windows of '" + listed.name + "' are not in order");
  }
}

bool ListedWindows::next_record(io::RecordInfo& record) {
  if (!next_window_of_record() && !next_listed_record()) return false;
  const ListedWindow& window = listed_->windows[window_];
  skip_to(window.begin);
  record = record_;
  record.begin = record_.begin + window.begin;
  record.length = window.end - window.begin;
  begun_bases_ += record.length;
  return true;
}

double ListedWindows::share_read() const {
  if (begun_bases_ == 0) return 0;
  const std::int64_t missing = listed_ == nullptr ? 0 : listed_->windows[window_].end - position_;
  return static_cast<double>(begun_bases_ - missing) / static_cast<double>(total_bases_);
}

bool ListedWindows::next_window_of_record() {
  return listed_ != nullptr && ++window_ < listed_->windows.size();
}

bool ListedWindows::next_listed_record() {
  while (source_->next_record(record_)) {
    const auto found = windows_.find(++record_index_);
    if (found == windows_.end() || found->second.windows.empty()) continue;
    if (found->second.name != record_.name) {
      fail(fmt::format("record {} is '{}', where the list has '{}'", record_index_, record_.name,
                       found->second.name));
    }
    listed_ = &found->second;
    window_ = 0;
    position_ = 0;
    source_position_ = 0;
    overlap_.clear();
    return true;
  }
  listed_ = nullptr;
  for (auto rest = windows_.upper_bound(record_index_); rest != windows_.end(); ++rest) {
    if (rest->second.windows.empty()) continue;
    fail(fmt::format("it ends after {} records, where the list has record {}, '{}'", record_index_ + 1,
                     rest->first, rest->second.name));
  }
  return false;
}

void ListedWindows::fail(const std::string& what) const {
  throw io::InputError(
      fmt::format("{}: {}: the file is not the one that the windows were made from", path_, what));
}

// Bases before `position` are wanted no more: windows come by begin.
void ListedWindows::skip_to(std::int64_t position) {
  const std::int64_t overlap_begin = source_position_ - std::ssize(overlap_);
  overlap_.erase(0, std::clamp<std::int64_t>(position - overlap_begin, 0, std::ssize(overlap_)));
  std::array<char, 1 << 16> passed;
  while (source_position_ < position) {
    const auto wanted = std::min<std::int64_t>(position - source_position_, std::ssize(passed));
    const std::int64_t count = source_->read_bases(std::span(passed).first(wanted));
    if (count == 0) break;
    source_position_ += count;
  }
  position_ = position;
}

std::int64_t ListedWindows::read_bases(std::span<char> out) {
  const std::int64_t left = listed_->windows[window_].end - position_;
  std::span<char> wanted = out.first(std::min<std::int64_t>(left, std::ssize(out)));
  std::int64_t filled = read_from_overlap(wanted);
  filled += read_from_source(wanted.subspan(filled));
  position_ += filled;
  if (filled < std::ssize(wanted)) {
    fail(fmt::format("record '{}' ends at base {}, before the end of its listed window {}-{}", record_.name,
                     source_position_, listed_->windows[window_].begin, listed_->windows[window_].end));
  }
  return filled;
}

std::int64_t ListedWindows::read_from_overlap(std::span<char> out) {
  const std::int64_t overlap_begin = source_position_ - std::ssize(overlap_);
  if (position_ < overlap_begin) return 0;
  const auto at = static_cast<std::size_t>(position_ - overlap_begin);
  return static_cast<std::int64_t>(at < overlap_.size() ? overlap_.copy(out.data(), out.size(), at) : 0);
}

std::int64_t ListedWindows::read_from_source(std::span<char> out) {
  if (out.empty()) return 0;
  const std::int64_t begin = source_position_;
  const std::int64_t count = source_->read_bases(out);
  source_position_ += count;
  const bool last = window_ + 1 == listed_->windows.size();
  const std::int64_t wanted_from = last ? source_position_ : listed_->windows[window_ + 1].begin;
  if (wanted_from > begin) overlap_.clear();
  const std::int64_t kept = std::clamp<std::int64_t>(source_position_ - wanted_from, 0, count);
  overlap_.append(out.data() + (count - kept), static_cast<std::size_t>(kept));
  return count;
}

}  // namespace longstrand::pipelines
