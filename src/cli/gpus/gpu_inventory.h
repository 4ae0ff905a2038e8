// Which GPUs the driver lists, and which of them the user means.
//
// A short-lived child process asks the driver: its libraries are large, open devices and may hang
// or crash, and a command that only waits for a program should carry none of that. It asks NVML
// first (no context, no GPU memory), and CUDA where NVML is missing. It opens both by absolute
// path, so that the answer is the machine's (inside a slice: the slice's).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cli/gpus/libraries.h"
#include "cli/slice_spec.h"

namespace allot::cli {

using Uuid = std::array<uint8_t, 16>;

struct Gpu {
  uint32_t index = 0;  // NVML's order, which is the PCI bus order
  Uuid uuid{};
  std::string uuid_text;  // "GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", or "MIG-..."
  std::string name;
  uint64_t total_bytes = 0;
  uint64_t free_bytes = 0;
  bool free_known = false;   // CUDA says it only inside a context, which we do not make
  bool mig_enabled = false;  // a divided GPU; its instances follow in the list
};

struct Inventory {
  std::vector<Gpu> gpus;
  bool software = false;       // the software GPU of sim/
  std::string source;          // "NVML" or "CUDA"
  std::string driver_version;  // "580.159.04"; empty where only CUDA could be asked
  int cuda_version = 0;        // 13000 = 13.0; 0 = not known
  std::string problem;         // why there is no list; empty when there is one
};

// Asks the driver (or the software GPU) at `driver`. Never throws for an error of the machine:
// without an answer it returns a list without GPUs and a `problem`. Blocks up to 60 s; forks.
Inventory ask_driver(const DriverFiles& driver);

// The same, but a missing answer is a Failure (exit 125) that says what to do.
Inventory need_gpus(const DriverFiles& driver);

// "GPU-1a2b3c4d-..." for 16 bytes. Any thread; allocates.
std::string uuid_to_text(const Uuid& uuid, std::string_view prefix = "GPU");

// The bytes of such a text, with or without its prefix; false when it is not a whole UUID.
bool uuid_from_text(std::string_view text, Uuid* uuid);

// The GPU that `selector` means: an index, a UUID, or the beginning of one (with or without "GPU-",
// and a digit at least). Throws a Failure (exit 125) that lists the GPUs when none or
// several match, or it can be no GPU anywhere.
const Gpu& find_gpu(const Inventory& inventory, std::string_view flag, std::string_view selector);

// One GPU of a slice and its limit.
struct ChosenGpu {
  const Gpu* gpu;
  uint64_t limit_bytes;
};

// The GPUs of a slice: those of --gpu, or all, each with the limit that --gpu-mem gives it. Throws
// a Failure for an unknown GPU, a limit for a GPU that --gpu leaves out, two limits for one GPU, a
// limit above the GPU's memory, or more GPUs than a slice can hold.
std::vector<ChosenGpu> choose_gpus(const Inventory& inventory, const SliceSpec& spec);

}  // namespace allot::cli
