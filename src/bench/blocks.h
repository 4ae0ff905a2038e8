// Pieces of GPU memory, by each of the ways a program can get them.
//
// One maker for all kinds, so that `bench alloc` asks every way of getting memory the same
// question: how much until it is refused. A refusal is a result, not a failure.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "bench/gpu.h"

namespace allot::bench {

enum class BlockKind { kLinear, kAsync, kVmm, kManaged, kArray, kPitch, kGraph };

// The kind called "linear", "async", "vmm", "managed", "array", "pitch" or "graph".
std::optional<BlockKind> block_kind(std::string_view name);

struct Block {
  CUdeviceptr address = 0;
  CUarray array = nullptr;
  CUmemGenericAllocationHandle handle = 0;
  CUgraphExec exec = nullptr;
  size_t pitch_bytes = 0;
};

class BlockMaker {
 public:
  // `step_bytes`: wanted size of a block; the kind may round it up (block_bytes()).
  // Failure 1: a step that the kind cannot have (an array of more than 4 GiB, a step of 0).
  BlockMaker(const Gpu& gpu, BlockKind kind, uint64_t step_bytes);

  // Bytes that one block asks the driver for.
  uint64_t block_bytes() const { return block_bytes_; }

  // Makes a block and waits until it stands. Anything but CUDA_SUCCESS leaves nothing behind.
  CUresult make(Block* block) const;
  void free(const Block& block) const;

  // Writes `value` into the first and last MiB of a block (an array: its first row), and counts the
  // 32-bit words there that differ from `value`. Failure 1: a call failed.
  void fill(const Block& block, uint32_t value) const;
  uint64_t mismatches(const Block& block, uint32_t value) const;

 private:
  CUresult make_vmm(Block* block) const;
  CUresult make_graph(Block* block) const;
  CUresult make_array(Block* block) const;
  CUresult make_pitch(Block* block) const;
  void copy_array_row(const Block& block, uint32_t* row, bool to_device) const;

  const Gpu& gpu_;
  BlockKind kind_;
  uint64_t block_bytes_;
  CUmemAllocationProp vmm_{};
};

}  // namespace allot::bench
