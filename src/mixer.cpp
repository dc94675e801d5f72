#include "src/mixer.hpp"

#include <array>
#include <stdexcept>

#include "src/bimamba.hpp"
#include "src/mamba1.hpp"

namespace longstrand {
namespace {

template <class M, class T>
std::unique_ptr<Mixer<T>> make(const ModelConfig& config, const std::string& prefix,
                               const ParameterStore& weights) {
  return std::make_unique<M>(config, prefix, weights);
}

const std::array kMixers = {
    MixerEntry{.name = "Mamba1",
               .sweep = Sweep::chunk_major,
               .declare = declare_mamba1,
               .initialise = initialise_mamba1,
               .sort_channels = sort_mamba1_channels,
               .make_fp32 = make<Mamba1<float>, float>,
               .make_bf16 = make<Mamba1<bfloat16>, bfloat16>},
    MixerEntry{.name = kBidirectionalMixer,
               .sweep = Sweep::layer_major,
               .declare = declare_bimamba1,
               .initialise = initialise_bimamba1,
               .sort_channels = nullptr,  // directions that share z differ in pace
               .make_fp32 = make<BiMamba1<float>, float>,
               .make_bf16 = make<BiMamba1<bfloat16>, bfloat16>},
};

}  // namespace

const MixerEntry& find_mixer(const std::string& name) {
  std::string known;
  for (const MixerEntry& entry : kMixers) {
    if (entry.name == name) return entry;
    known += (known.empty() ? "" : ", ") + entry.name;
  }
  throw std::runtime_error("sequence layer \"" + name +
                           "\" is not supported by this version; supported: " + known);
}

}  // namespace longstrand
