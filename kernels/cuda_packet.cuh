// V neighbouring elements in one access.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "kernels/cuda_session.cuh"

namespace longstrand::cuda {

/// The elements of a packet where rows permit it: 16 bytes of float, 8 of bfloat16.
inline constexpr int kPacket = 4;

/// Whether every row of `view` starts at a whole packet, for packets of V elements.
template <int V = kPacket, class T, int Rank>
bool rows_hold_packets(const View<T, Rank>& view) {
  bool whole = reinterpret_cast<std::uintptr_t>(view.data) % (sizeof(T) * V) == 0;
  for (int i = 0; i + 1 < Rank; ++i) whole = whole && view.stride[i] % V == 0;
  return whole;
}

// -- device side; `from` and `to` are aligned to the packet

template <class T, int V>
struct alignas(sizeof(T) * V) Packet {
  T element[V];
};

template <int V, class T>
__device__ inline void load(const T* from, float (&to)[V]) {
  const Packet<T, V> packet = *reinterpret_cast<const Packet<T, V>*>(from);
#pragma unroll
  for (int i = 0; i < V; ++i) to[i] = to_float(packet.element[i]);
}

template <int V, class T>
__device__ inline void store(const float (&from)[V], T* to) {
  Packet<T, V> packet;
#pragma unroll
  for (int i = 0; i < V; ++i) packet.element[i] = from_float<T>(from[i]);
  *reinterpret_cast<Packet<T, V>*>(to) = packet;
}

/// The elements of a pair; the first has the lower address.
__device__ inline float first_of(std::uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float second_of(std::uint32_t pair) { return __uint_as_float(pair & 0xFFFF0000U); }

/// Such a pair of two, rounded by one instruction.
__device__ inline std::uint32_t round_pair(float first, float second) {
  std::uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}

template <>
__device__ inline void store<kPacket>(const float (&from)[kPacket], bfloat16* to) {
  // The compiler would take such a store apart to have each half of it earlier.
  asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(round_pair(from[0], from[1])),
               "r"(round_pair(from[2], from[3]))
               : "memory");
}

}  // namespace longstrand::cuda
