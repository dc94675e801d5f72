// Operand checks of the operations' public functions. A failed one is a bug of ours, not of a user.
#pragma once

#include <initializer_list>
#include <sstream>
#include <stdexcept>
#include <string>

#include "kernels/view.hpp"

namespace longstrand {

template <class... Part>
std::string concat(const Part&... part) {
  std::ostringstream text;
  (text << ... << part);
  return text.str();
}

/// Where an operation is asked of the CPU and this build has it for GPUs only.
struct NoCpuBackend : std::runtime_error {
  NoCpuBackend() : std::runtime_error("this build has no CPU backend; use --device cuda") {}
};

/// Throws std::logic_error unless `view` has the given shape. An empty view passes when `optional`.
template <class T, int Rank>
void require_shape(const char* operand, const View<T, Rank>& view,
                   const std::array<std::type_identity_t<std::int64_t>, Rank>& expected,
                   bool optional = false) {
  if (view.empty() ? optional : view.shape == expected) return;
  std::ostringstream text;
  text << operand << ": expected shape [";
  for (int i = 0; i < Rank; ++i) text << (i ? ", " : "") << expected[i];
  text << "], got [";
  for (int i = 0; i < Rank; ++i) text << (i ? ", " : "") << view.shape[i];
  text << "]" << (view.empty() ? " without data" : "");
  throw std::logic_error(text.str());
}

}  // namespace longstrand
