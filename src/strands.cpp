#include "src/strands.hpp"

#include "kernels/transfer.hpp"
#include "src/vocabulary.hpp"

namespace longstrand {

Array<std::int32_t, 1> facing_logits(std::int64_t vocabulary, Context& context) {
  std::vector<std::int32_t> facing(static_cast<std::size_t>(vocabulary));
  for (std::size_t v = 0; v < facing.size(); ++v) facing[v] = complement(static_cast<std::uint8_t>(v));
  Array<std::int32_t, 1> on_device({vocabulary}, context.device);
  copy(View<const std::int32_t, 1>(facing.data(), {vocabulary}), on_device.view(), context);
  return on_device;
}

}  // namespace longstrand
