// Named float tensors in one arena. A model's weights are one store; gradients and the optimizer's moments
// are further stores of the same layout.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/context.hpp"
#include "kernels/memory.hpp"
#include "kernels/view.hpp"

namespace longstrand {

struct ParameterSpec {
  std::string name;                 // as in the state-spaces layout
  std::vector<std::int64_t> shape;  // as in the state-spaces layout
  bool decay = false;               // takes weight decay
  std::int64_t offset = 0;          // of its first element in the arena; filled in by the store
  std::int64_t size() const;
  std::array<std::int64_t, 2> matrix_shape() const { return {shape.front(), size() / shape.front()}; }
};

class ParameterStore {
 public:
  ParameterStore() = default;
  /// Zero-filled. Parameters with weight decay come first in the arena.
  explicit ParameterStore(std::vector<ParameterSpec> specs, Device device = {});
  /// Another store of the same layout, zero-filled.
  ParameterStore like(Device device) const { return ParameterStore(specs_, device); }
  ParameterStore like() const { return like(device()); }

  const std::vector<ParameterSpec>& specs() const { return specs_; }
  bool contains(const std::string& name) const { return index_.contains(name); }
  /// Throws std::out_of_range for an unknown name.
  const ParameterSpec& spec(const std::string& name) const;
  View<float, 1> flat(const std::string& name);
  View<const float, 1> flat(const std::string& name) const;
  View<float, 2> matrix(const std::string& name);  // [shape[0], product of the rest]
  View<const float, 2> matrix(const std::string& name) const;

  View<float, 1> all();
  View<const float, 1> all() const;
  // The arena's first part, and its second.
  View<float, 1> decayed() { return all().slice(0, decayed_size_); }
  View<float, 1> not_decayed() { return all().slice(decayed_size_, size_ - decayed_size_); }
  Device device() const { return arena_.device(); }
  std::size_t size_bytes() const { return arena_.size_bytes(); }

 private:
  std::vector<ParameterSpec> specs_;
  std::map<std::string, std::size_t> index_;
  Buffer arena_;
  std::int64_t size_ = 0;
  std::int64_t decayed_size_ = 0;
};

/// Weights of the host as operations of `context` take them: a copy on its GPU, or nothing on a CPU, which
/// takes them as they are.
std::optional<ParameterStore> copy_to_gpu(const ParameterStore& weights, Context& context);

}  // namespace longstrand
