// Compile-time check that a function has the same parameters as a driver entry.
//
// A hook or a software-GPU export with one parameter too few, or with 32 bits where the driver has
// 64, compiles and corrupts its caller. The tables know how each entry's parameters travel
// ("shape", one letter a parameter, tools/driver_shapes.py); here the shape of a C++ function is
// read from its type:
//
//   static_assert(fits_cuda<mem_alloc>("cuMemAlloc_v2"));
//
// Everything is consteval; nothing of it remains in the library. An entry whose declaration is not
// known (shape "?") fits every function; a symbol that is not in the table fits none.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string_view>
#include <type_traits>

namespace allot::driver {

struct Shape {
  std::string_view symbol;
  std::string_view shape;
};

#include "driver/cuda_shapes.inc"
#include "driver/nvml_shapes.inc"

// The letter for a parameter of type T: System V AMD64 ABI, 3.2.3.
template <class T>
consteval char shape_letter() {
  if constexpr (std::is_same_v<T, float>) {
    return 'f';
  } else if constexpr (std::is_same_v<T, double>) {
    return 'd';
  } else if constexpr (std::is_class_v<T> || std::is_union_v<T>) {
    return sizeof(T) > 16 ? 'M' : 'S';
  } else {
    return sizeof(T) == 8 ? 'l' : sizeof(T) == 4 ? 'i' : sizeof(T) == 2 ? 'h' : 'c';
  }
}

template <class F>
struct ShapeOf;
template <class R, class... P>
struct ShapeOf<R (*)(P...)> {
  static_assert(sizeof(R) == 4, "driver entries return a 32-bit result");
  static constexpr std::array<char, sizeof...(P) + 1> kLetters = {shape_letter<P>()..., '\0'};
  static constexpr std::string_view kShape =
      sizeof...(P) == 0 ? std::string_view("-") : std::string_view(kLetters.data(), sizeof...(P));
};

// Whether a function of type F has the shape that `shapes` (sorted by symbol) gives for `symbol`.
template <class F>
consteval bool fits(std::span<const Shape> shapes, std::string_view symbol) {
  size_t low = 0;
  size_t high = shapes.size();
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (shapes[middle].symbol < symbol) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == shapes.size() || shapes[low].symbol != symbol) return false;
  return shapes[low].shape == "?" || shapes[low].shape == ShapeOf<F>::kShape;
}

template <auto F>
consteval bool fits_cuda(std::string_view symbol) {
  return fits<decltype(F)>(kCudaShapes, symbol);
}

template <auto F>
consteval bool fits_nvml(std::string_view symbol) {
  return fits<decltype(F)>(kNvmlShapes, symbol);
}

}  // namespace allot::driver
