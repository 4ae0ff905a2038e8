// What one slice says of itself on one GPU, summed up over its processes: clamped, bounded, and
// without those that do not exist any more. See neighbours.h.
#pragma once

#include <cstdint>

#include "shim/time/neighbours.h"

namespace allot::shim {

// False when the slice has nothing to do with that GPU. What is given may change meanwhile: each
// number is read once. Reads /proc for a client that has not shown itself for 25 ms, where its pid
// means something here (`my_namespace`).
bool summarise(const AllotHeader& header, const AllotGpu* gpus, const AllotGpuClient* clients,
               const uint8_t uuid[16], uint64_t now_ns, uint64_t my_namespace, Neighbour* out);

// What of it may change others' schedules, as a number.
uint64_t told_by(const core::SliceDemand& slice);

}  // namespace allot::shim
