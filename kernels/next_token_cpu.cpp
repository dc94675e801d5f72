#include "kernels/next_token_cpu.hpp"

#include "kernels/cross_entropy.hpp"

namespace longstrand::cpu {

void next_token_targets(View<const std::uint8_t, 2> tokens, View<const std::int32_t, 1> next,
                        View<const std::int64_t, 1> valid, TokenRange predicted,
                        View<std::int32_t, 1> target) {
  const auto [lanes, length] = tokens.shape;
  std::int32_t* to = target.data;
  for (std::int64_t lane = 0; lane < lanes; ++lane) {
    const std::int64_t end = valid.data[lane];
    for (std::int64_t t = 1; t <= length; ++t) {
      const std::int32_t token = t < end ? *tokens.at(lane, t) : t == end ? next.data[lane] : kNoTarget;
      *to++ = predicted.contains(token) ? token : kNoTarget;
    }
  }
}

}  // namespace longstrand::cpu
