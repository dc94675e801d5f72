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

/// The elements of a pair; the first has the lower address.
__device__ inline float first_of(std::uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float second_of(std::uint32_t pair) { return __uint_as_float(pair & 0xFFFF0000U); }

template <class T, int V>
struct alignas(sizeof(T) * V) Packet {
  T element[V];
};

template <int V, class T>
__device__ inline Packet<T, V> packet_at(const T* from) {
  return *reinterpret_cast<const Packet<T, V>*>(from);
}
template <int V, class T>
__device__ inline void unpack(const Packet<T, V>& packet, float (&to)[V]) {
#pragma unroll
  for (int i = 0; i < V; ++i) to[i] = to_float(packet.element[i]);
}
/// Words: the compiler would keep each half in a register of its own.
template <>
struct alignas(8) Packet<bfloat16, kPacket> {
  std::uint32_t pair[2];
};
template <>
__device__ inline void unpack(const Packet<bfloat16, kPacket>& packet, float (&to)[kPacket]) {
  to[0] = first_of(packet.pair[0]), to[1] = second_of(packet.pair[0]);
  to[2] = first_of(packet.pair[1]), to[3] = second_of(packet.pair[1]);
}
template <int V, class T>
__device__ inline void load(const T* from, float (&to)[V]) {
  unpack(packet_at<V>(from), to);
}

template <int V, class T>
__device__ inline void store(const float (&from)[V], T* to) {
  Packet<T, V> packet;
#pragma unroll
  for (int i = 0; i < V; ++i) packet.element[i] = from_float<T>(from[i]);
  *reinterpret_cast<Packet<T, V>*>(to) = packet;
}

/// Two as a pair, rounded by one instruction.
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
