#include "io/alignment_source.hpp"

#include <fmt/format.h>
#include <htslib/cram.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <new>
#include <utility>
#include <vector>

#include "io/fasta_index.hpp"
#include "io/input_error.hpp"
#include "io/packed_bases.hpp"
#include "io/region.hpp"

namespace longstrand::io {
namespace {

// Takes UR and M5 out of the @SQ lines that the decoder sees (header_ is a copy of them), so that HTSlib
// looks for no reference by itself: it would open the file or URL of UR, and ask the server in REF_PATH, by
// default EBI's, for M5.
void forget_reference_names(cram_fd* file) {
  sam_hdr_t* header = cram_fd_get_header(file);
  const int count = sam_hdr_nref(header);
  for (int id = 0; id < count; ++id) {
    const char* name = sam_hdr_tid2name(header, id);
    sam_hdr_remove_tag_id(header, "SQ", "SN", name, "UR");
    sam_hdr_remove_tag_id(header, "SQ", "SN", name, "M5");
  }
}

using Intervals = std::map<int, std::vector<hts_pair_pos_t>>;  // by sequence id

// Overlapping and adjacent intervals of a sequence joined, in order.
void join(std::vector<hts_pair_pos_t>& intervals) {
  std::sort(intervals.begin(), intervals.end(),
            [](const hts_pair_pos_t& a, const hts_pair_pos_t& b) { return a.beg < b.beg; });
  std::size_t kept = 0;
  for (const hts_pair_pos_t& interval : intervals) {
    if (kept > 0 && interval.beg <= intervals[kept - 1].end) {
      intervals[kept - 1].end = std::max(intervals[kept - 1].end, interval.end);
    } else {
      intervals[kept++] = interval;
    }
  }
  intervals.resize(kept);
}

template <class T>
T* allocate(std::size_t count) {
  auto* memory = static_cast<T*>(std::calloc(count, sizeof(T)));
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

// HTSlib takes ownership of the list, with free(), also where it returns no iterator.
HtsIteratorPtr make_iterator(hts_idx_t* index, sam_hdr_t* header, Intervals intervals_of) {
  auto* list = allocate<hts_reglist_t>(intervals_of.size());
  std::size_t entry = 0;
  for (auto& [id, intervals] : intervals_of) {
    join(intervals);
    hts_reglist_t& region = list[entry++];
    region.reg = sam_hdr_tid2name(header, id);
    region.tid = id;
    region.count = static_cast<std::uint32_t>(intervals.size());
    region.intervals = allocate<hts_pair_pos_t>(intervals.size());
    std::copy(intervals.begin(), intervals.end(), region.intervals);
    region.min_beg = intervals.front().beg;
    region.max_end = intervals.back().end;
  }
  return HtsIteratorPtr(sam_itr_regions(index, header, list, static_cast<unsigned>(intervals_of.size())));
}

}  // namespace

AlignmentSource::AlignmentSource(HFilePtr file, std::string path, SequenceKind kind,
                                 const SourceOptions& options)
    : path_(std::move(path)), kind_(kind), options_(options), record_(bam_init1()) {
  if (!record_) throw std::bad_alloc();
  file_.reset(hts_hopen(file.get(), local_name(path_).c_str(), "r"));
  if (!file_)
    throw InputError(fmt::format("{}: the {} header is truncated or damaged", path_, kind_name(kind_)));
  file.release();  // now owned by file_
  read_header();
  if (kind_ == SequenceKind::cram) set_cram_options();
  if (!options_.regions.empty() || !options_.regions_file.empty()) {
    find_regions();
  } else if (options_.decompression_threads > 0) {
    start_threads();
  }
}

// Not before the header is read: of a file that is truncated there HTSlib (1.16) would wait for ever. Nor for
// a CRAM file that may lack its end-of-file marker, which HTSlib's threads do not miss.
void AlignmentSource::start_threads() {
  constexpr int kMarkerMissing = 0;
  constexpr int kCannotTell = 2;  // a pipe
  if (kind_ == SequenceKind::cram) {
    const int marker = hts_check_EOF(file_.get());
    if (marker == kMarkerMissing || marker == kCannotTell) return;
  }
  if (hts_set_threads(file_.get(), options_.decompression_threads) < 0) throw std::bad_alloc();
}

void AlignmentSource::read_header() {
  header_.reset(sam_hdr_read(file_.get()));
  if (!header_)
    throw InputError(fmt::format("{}: the {} header is truncated or damaged", path_, kind_name(kind_)));
}

void AlignmentSource::set_cram_options() {
  forget_reference_names(file_->fp.cram);
  if (!options_.reference.empty()) {
    const HFilePtr reference = open_local_file(options_.reference);
    require_fasta_index(options_.reference,
                        detect_format(reference.get(), options_.reference).compression == bgzf);
    if (hts_set_opt(file_.get(), CRAM_OPT_REFERENCE, local_name(options_.reference).c_str()) < 0) {
      throw InputError(fmt::format("{}: cannot be used as reference of {}", options_.reference, path_));
    }
  }
  // The rest of a record is not even decompressed.
  constexpr int kFields = SAM_QNAME | SAM_FLAG | SAM_RNAME | SAM_POS | SAM_CIGAR | SAM_SEQ;
  hts_set_opt(file_.get(), CRAM_OPT_REQUIRED_FIELDS, kFields);
  hts_set_opt(file_.get(), CRAM_OPT_DECODE_MD, 0);
}

void AlignmentSource::find_regions() {
  const bool has_end_marker = hts_check_EOF(file_.get()) != 0;
  if (!has_end_marker)
    throw InputError(fmt::format("{}: truncated: its end-of-file marker is missing", path_));
  index_.reset(sam_index_load3(file_.get(), local_name(path_).c_str(), nullptr, HTS_IDX_SILENT_FAIL));
  if (!index_) {
    throw InputError(
        kind_ == SequenceKind::sam
            ? fmt::format("{}: regions need an indexed BAM or CRAM file; make one with samtools sort", path_)
            : fmt::format("{0}: has no index; make it with: samtools index {0}", path_));
  }
  const auto id_of = [&](const std::string& name) { return sam_hdr_name2tid(header_.get(), name.c_str()); };
  const auto regions =
      resolve_regions(options_.regions, options_.regions_file, path_, [&](const std::string& name) {
        const int id = id_of(name);
        return id < 0 ? std::int64_t{-1} : std::int64_t{sam_hdr_tid2len(header_.get(), id)};
      });
  Intervals intervals;
  for (const Region& region : regions) intervals[id_of(region.name)].push_back({region.begin, region.end});
  iterator_ = make_iterator(index_.get(), header_.get(), std::move(intervals));
  if (!iterator_) {
    throw InputError(
        fmt::format("{0}: its index cannot be used; make it anew with: samtools index {0}", path_));
  }
}

bool AlignmentSource::next_record(RecordInfo& record) {
  do {
    if (!read_record()) return false;
  } while ((record_->core.flag & options_.exclude_flags) != 0);
  record.clear();
  record.name = bam_get_qname(record_.get());
  record.length = record_->core.l_qseq;
  next_base_ = 0;
  return true;
}

bool AlignmentSource::read_record() {
  const int status = iterator_ ? sam_itr_multi_next(file_.get(), iterator_.get(), record_.get())
                               : sam_read1(file_.get(), header_.get(), record_.get());
  if (status >= 0) {
    ++records_read_;
    return true;
  }
  if (status < -1) fail_to_decode();
  record_->core.l_qseq = 0;  // nothing more to read from the last record
  if (!iterator_ && !at_clean_end()) {
    throw InputError(
        fmt::format("{}: truncated: the end-of-file marker is missing after {} records; get the file again",
                    path_, records_read_));
  }
  return false;
}

bool AlignmentSource::at_clean_end() const {
  constexpr int kEndWithoutMarker = 2;
  if (kind_ == SequenceKind::cram) return cram_eof(file_->fp.cram) != kEndWithoutMarker;
  return file_->format.compression != bgzf || !file_->fp.bgzf->no_eof_block;
}

void AlignmentSource::fail_to_decode() const {
  if (kind_ != SequenceKind::cram) {
    throw InputError(
        fmt::format("{}: record {} is truncated or damaged; get the file again", path_, records_read_ + 1));
  }
  const std::string advice =
      options_.reference.empty()
          ? std::string("it is damaged, or needs the reference it was made with: give it with -f REF.fa")
          : "is it damaged, or was it made with another reference than " + options_.reference + "?";
  throw InputError(fmt::format("{}: record {} cannot be decoded; {}", path_, records_read_ + 1, advice));
}

std::int64_t AlignmentSource::read_bases(std::span<char> out) {
  const std::int64_t length = record_->core.l_qseq;
  const std::int64_t count = std::min(length - next_base_, std::ssize(out));
  if (count <= 0) return 0;
  const auto piece = out.first(static_cast<std::size_t>(count));
  const std::uint8_t* packed = bam_get_seq(record_.get());
  if (bam_is_rev(record_.get())) {
    unpack_reverse_complement(packed, length, next_base_, piece);
  } else {
    unpack_bases(packed, next_base_, piece);
  }
  next_base_ += count;
  return count;
}

}  // namespace longstrand::io
