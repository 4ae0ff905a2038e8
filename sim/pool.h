// Stream-ordered memory: pools, what they reserve on the card, and what graphs' memory nodes use.
//
// Measured on an H100 (580.159.04): a pool takes memory in steps of 32 MiB (33 MiB -> 64, 100 ->
// 128); what was freed stays reserved until the host synchronises, then the pool keeps as much as
// its release threshold says. Graph memory is taken at the launch, in the same steps, and stays
// until cuDeviceGraphMemTrim.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "driver/cuda_abi.h"

namespace allot::sim {

struct Block;
struct Context;
struct Pool;
struct Stream;

CUmemoryPool pool_handle(Pool* pool);
Pool* default_pool(CUdevice device);

// Takes memory for work that `stream` does after what it holds now. OUT_OF_MEMORY.
CUresult allocate_in_pool(Pool* pool, Stream* stream, uint64_t bytes, uint64_t* address);
// Gives it back: with a stream, in the stream's order; without, now. INVALID_VALUE for other
// addresses.
CUresult free_in_pool(uint64_t address, Stream* stream);

// Memory nodes of graphs. A region is a range of addresses from the moment the node exists; the
// card's memory comes with the first launch (back_region) and stays for the next ones.
struct GraphRegion;
GraphRegion* make_region(CUdevice device, uint64_t bytes, uint64_t* address);
CUresult back_region(GraphRegion* region);  // OUT_OF_MEMORY
void end_region_use(GraphRegion* region);   // freed by a node, or its graph is gone
void drop_region(GraphRegion* region);      // the graph that made it is gone
GraphRegion* region_at(uint64_t address);
CUresult free_graph_memory(uint64_t address);  // cuMemFree on memory a graph left allocated

}  // namespace allot::sim
