// A yardstick for classifiers: the k-mer frequencies of a sequence, and the class whose mean is nearest to
// them.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace longstrand::pipelines {

inline constexpr int kLargestK = 8;  // profiles of 4^8 numbers

/// How often each k-mer occurs in a sequence that comes in pieces (tokens of io/alphabet.hpp); k-mers with
/// anything but A, C, G, T are left out.
class KmerCounter {
 public:
  explicit KmerCounter(int k);

  void add(std::span<const std::uint8_t> tokens);
  std::span<const double> counts() const { return counts_; }  // [4^k]
  /// Begins the next sequence.
  void reset();

 private:
  int k_;
  std::vector<double> counts_;
  std::uint64_t kmer_ = 0;  // 2 bits a base, the newest lowest
  int bases_ = 0;           // up to k: since the last token that is no base
};

enum class Similarity : std::uint8_t {
  euclidean,  // distance between frequencies that sum to 1
  cosine,     // angle between frequency vectors
};
std::string_view similarity_name(Similarity similarity);

class KmerCentroids {
 public:
  KmerCentroids(std::int64_t classes, int k, Similarity similarity);

  /// Adds a training sample. A profile without a single k-mer is left out.
  void add(std::int64_t label, std::span<const double> kmer_counts);
  /// The class with the nearest centroid; the first of several. Classes without samples are never it. Throws
  /// std::logic_error if there are no samples at all.
  std::int64_t predict(std::span<const double> kmer_counts) const;

 private:
  std::vector<double> normalised(std::span<const double> kmer_counts) const;

  Similarity similarity_;
  std::int64_t width_;                 // 4^k
  std::vector<double> sums_;           // [classes, 4^k]
  std::vector<std::int64_t> samples_;  // [classes]
};

}  // namespace longstrand::pipelines
