#include "pipelines/kmer_centroids.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "io/alphabet.hpp"

namespace longstrand::pipelines {

KmerCounter::KmerCounter(int k) : k_(k), counts_(std::size_t{1} << (2 * k)) {
  assert(k >= 1 && k <= kLargestK);
}

void KmerCounter::add(std::span<const std::uint8_t> tokens) {
  const std::uint64_t mask = counts_.size() - 1;
  for (const std::uint8_t token : tokens) {
    if (!io::is_base(token)) {
      bases_ = 0;
      continue;
    }
    kmer_ = ((kmer_ << 2) | static_cast<std::uint64_t>(token - io::kA)) & mask;
    bases_ = std::min(bases_ + 1, k_);
    if (bases_ == k_) counts_[kmer_] += 1;
  }
}

void KmerCounter::reset() {
  std::ranges::fill(counts_, 0.0);
  bases_ = 0;
}

std::string_view similarity_name(Similarity similarity) {
  return similarity == Similarity::euclidean ? "euclidean" : "cosine";
}

KmerCentroids::KmerCentroids(std::int64_t classes, int k, Similarity similarity)
    : similarity_(similarity),
      width_(std::int64_t{1} << (2 * k)),
      sums_(classes * width_),
      samples_(classes) {}

std::vector<double> KmerCentroids::normalised(std::span<const double> kmer_counts) const {
  double norm = 0;
  for (const double count : kmer_counts) norm += similarity_ == Similarity::euclidean ? count : count * count;
  if (similarity_ == Similarity::cosine) norm = std::sqrt(norm);
  std::vector<double> result(kmer_counts.begin(), kmer_counts.end());
  if (norm > 0) {
    for (double& value : result) value /= norm;
  }
  return result;
}

void KmerCentroids::add(std::int64_t label, std::span<const double> kmer_counts) {
  assert(static_cast<std::int64_t>(kmer_counts.size()) == width_);
  if (std::accumulate(kmer_counts.begin(), kmer_counts.end(), 0.0) == 0) return;
  const std::vector<double> profile = normalised(kmer_counts);
  for (std::int64_t i = 0; i < width_; ++i) sums_[label * width_ + i] += profile[i];
  ++samples_[label];
}

std::int64_t KmerCentroids::predict(std::span<const double> kmer_counts) const {
  const std::vector<double> profile = normalised(kmer_counts);
  std::int64_t best = -1;
  double best_distance = 0;
  for (std::int64_t label = 0; label < std::ssize(samples_); ++label) {
    if (samples_[label] == 0) continue;
    const std::span<const double> sum(sums_.data() + label * width_, width_);
    // The centroid of unit vectors is shorter than 1: normalised again, the nearest is the one at the least
    // angle.
    double scale = 1.0 / static_cast<double>(samples_[label]);
    if (similarity_ == Similarity::cosine) {
      scale = 1.0 / std::sqrt(std::inner_product(sum.begin(), sum.end(), sum.begin(), 0.0));
    }
    double distance = 0;
    for (std::int64_t i = 0; i < width_; ++i) {
      const double difference = profile[i] - sum[i] * scale;
      distance += difference * difference;
    }
    if (best < 0 || distance < best_distance) {
      best = label;
      best_distance = distance;
    }
  }
  if (best < 0) throw std::logic_error("nearest centroid: no class has a training sample");
  return best;
}

}  // namespace longstrand::pipelines
