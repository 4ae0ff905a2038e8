// A hint for limits that leave no room even for a CUDA context.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/gpus/gpu_inventory.h"

namespace allot::cli {

// What a context takes on a GPU: as much as the greediest process of the slices was charged for it,
// else what one takes on usual cards. Reads the region.
uint64_t context_bytes(const Uuid& gpu);

// One note for each limit below that; the program would be refused memory at its first call.
void note_small_limits(const std::vector<ChosenGpu>& gpus);

// The same for one limit; `label` is the GPU as people know it. Empty where the limit is large
// enough.
std::string small_limit_text(const Uuid& gpu, const std::string& label, uint64_t limit_bytes);

}  // namespace allot::cli
