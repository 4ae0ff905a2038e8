// Memory of graphs: what other files need of graph.cc.
#pragma once

#include "shim/process/process.h"

namespace allot::shim {

// Makes ALLOT_KIND_GRAPH follow the driver's figure on every device that has graph memory.
void settle_graphs();

// Gives unused graph memory on `device` back to the GPU and adjusts the charge. Called before a
// request is refused.
void trim_graphs(const Device& device);

// Called after a free of a pointer that is not in the table: it may be a graph's.
void graph_memory_may_have_gone();

}  // namespace allot::shim
