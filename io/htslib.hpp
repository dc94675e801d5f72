// HTSlib handles that close themselves, and the one way in which this project opens files through it. HTSlib
// prints what it finds wrong to stderr; we silence it and throw InputError instead.
#pragma once

#include <htslib/bgzf.h>
#include <htslib/hfile.h>
#include <htslib/hts.h>
#include <htslib/sam.h>

#include <cstdlib>
#include <memory>
#include <string>

namespace longstrand::io {

struct HtsDeleter {
  void operator()(hFILE* file) const { hclose_abruptly(file); }
  void operator()(BGZF* file) const { bgzf_close(file); }
  void operator()(htsFile* file) const { hts_close(file); }
  void operator()(sam_hdr_t* header) const { sam_hdr_destroy(header); }
  void operator()(bam1_t* record) const { bam_destroy1(record); }
  void operator()(hts_idx_t* index) const { hts_idx_destroy(index); }
  void operator()(hts_itr_t* iterator) const { hts_itr_destroy(iterator); }
};

struct FreeDeleter {
  void operator()(void* memory) const { std::free(memory); }
};

using HFilePtr = std::unique_ptr<hFILE, HtsDeleter>;
using BgzfPtr = std::unique_ptr<BGZF, HtsDeleter>;
using HtsFilePtr = std::unique_ptr<htsFile, HtsDeleter>;
using SamHeaderPtr = std::unique_ptr<sam_hdr_t, HtsDeleter>;
using BamRecordPtr = std::unique_ptr<bam1_t, HtsDeleter>;
using HtsIndexPtr = std::unique_ptr<hts_idx_t, HtsDeleter>;
using HtsIteratorPtr = std::unique_ptr<hts_itr_t, HtsDeleter>;
using MallocString = std::unique_ptr<char, FreeDeleter>;

// Opens a local file, or standard input for "-", for reading. Never a URL: HTSlib's own hopen() would fetch
// it. Throws InputError.
HFilePtr open_local_file(const std::string& path);

// A local path as HTSlib must be told it: to a relative one like http:/x, which it would take for a URL, "./"
// is added.
std::string local_name(const std::string& path);

// What the file holds, from its first bytes, which stay unread. Throws InputError.
htsFormat detect_format(hFILE* file, const std::string& path);

// "VCF version 4.2 variant calling text"
std::string describe(const htsFormat& format);

}  // namespace longstrand::io
