#include "src/parameters.hpp"

#include <algorithm>
#include <stdexcept>

#include "kernels/transfer.hpp"

namespace longstrand {

std::int64_t ParameterSpec::size() const {
  std::int64_t product = 1;
  for (const std::int64_t extent : shape) product *= extent;
  return product;
}

ParameterStore::ParameterStore(std::vector<ParameterSpec> specs, Device device) : specs_(std::move(specs)) {
  // Every parameter begins at a cache line, so that vector loads from it are aligned.
  constexpr std::int64_t kAlignment_floats = kAlignment_bytes / sizeof(float);
  std::stable_partition(specs_.begin(), specs_.end(), [](const ParameterSpec& spec) { return spec.decay; });
  for (std::size_t i = 0; i < specs_.size(); ++i) {
    ParameterSpec& spec = specs_[i];
    if (!index_.emplace(spec.name, i).second) throw std::logic_error("two parameters named " + spec.name);
    spec.offset = size_;
    size_ += (spec.size() + kAlignment_floats - 1) / kAlignment_floats * kAlignment_floats;
    if (spec.decay) decayed_size_ = size_;
  }
  arena_ = Buffer(static_cast<std::size_t>(size_) * sizeof(float), device);
}

const ParameterSpec& ParameterStore::spec(const std::string& name) const {
  const auto found = index_.find(name);
  if (found == index_.end()) throw std::out_of_range("no parameter named " + name);
  return specs_[found->second];
}

View<float, 1> ParameterStore::all() {
  return {reinterpret_cast<float*>(arena_.data()), {size_}, arena_.device()};
}

View<const float, 1> ParameterStore::all() const {
  return {reinterpret_cast<const float*>(arena_.data()), {size_}, arena_.device()};
}

View<float, 1> ParameterStore::flat(const std::string& name) {
  const ParameterSpec& found = spec(name);
  return all().slice(found.offset, found.size());
}

View<const float, 1> ParameterStore::flat(const std::string& name) const {
  const ParameterSpec& found = spec(name);
  return all().slice(found.offset, found.size());
}

View<float, 2> ParameterStore::matrix(const std::string& name) {
  const ParameterSpec& found = spec(name);
  return {flat(name).data, found.matrix_shape(), arena_.device()};
}

View<const float, 2> ParameterStore::matrix(const std::string& name) const {
  const ParameterSpec& found = spec(name);
  return {flat(name).data, found.matrix_shape(), arena_.device()};
}

std::optional<ParameterStore> copy_to_gpu(const ParameterStore& weights, Context& context) {
  if (context.device == weights.device()) return std::nullopt;
  ParameterStore copied = weights.like(context.device);
  copy(weights.all(), copied.all(), context);
  return copied;
}

}  // namespace longstrand
