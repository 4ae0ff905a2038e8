// Graphs: nodes with what they depend on, executable copies, captures.
//
// An executable graph owns a deep copy of the graph it was made from; a launch walks the copy in
// topological order and queues every node's body into the stream, one after the other: correct for
// any graph, without the overlap of branches that a card can have. Everything here is guarded by
// graph_lock(); it is not held while work is queued.
#pragma once

#include <memory>
#include <vector>

#include "launch.h"
#include "pool.h"
#include "runtime.h"

namespace allot::sim {

inline constexpr uint32_t kGraphMagic = 0x47525048, kNodeMagic = 0x4e4f4445,
                          kExecMagic = 0x45584543;

struct Node;

// The addresses, and later the memory, of an allocation node; gone with the last graph that has it.
struct RegionOwner {
  GraphRegion* region;
  explicit RegionOwner(GraphRegion* r) : region(r) {}
  ~RegionOwner() { drop_region(region); }
  RegionOwner(const RegionOwner&) = delete;
  RegionOwner& operator=(const RegionOwner&) = delete;
};

struct Graph {
  uint32_t magic = kGraphMagic;
  std::vector<Node*> nodes;
  bool is_child = false;  // belongs to a node: not to be destroyed by hand
  const Graph* original = nullptr;
};

struct Node {
  uint32_t magic = kNodeMagic;
  Graph* graph = nullptr;
  Node* origin = nullptr;  // the node this one is a copy of
  CUgraphNodeType type = CU_GRAPH_NODE_TYPE_EMPTY;
  std::vector<Node*> deps;
  bool enabled = true;
  Body body;  // of kernel, memcpy, memset, host
  CUcontext context = nullptr;
  CUDA_MEMCPY3D copy{};
  CUDA_MEMSET_NODE_PARAMS_v1 set{};
  Event* event = nullptr;
  Graph* child = nullptr;
  std::shared_ptr<RegionOwner> region;
  CUDA_MEM_ALLOC_NODE_PARAMS_v1 alloc{};
  CUdeviceptr freed = 0;
  std::vector<CUstreamBatchMemOpParams> ops;
  std::vector<void*> argument_pointers;  // handed out by GetParams
  std::vector<std::pair<int, CUlaunchAttributeValue>> attributes;
};

struct GraphExec {
  uint32_t magic = kExecMagic;
  Graph* own = nullptr;
  uint64_t flags = 0;
};

struct Capture {
  uint64_t id = 0;
  Graph* graph = nullptr;
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  Stream* origin = nullptr;
  uint64_t thread = 0;
  bool invalid = false, ended = false, into_given = false;
  std::vector<Stream*> streams;
};

template <class T, uint32_t kMagic, class Handle>
T* checked(Handle handle) {
  auto* object = reinterpret_cast<T*>(handle);
  return object != nullptr && object->magic == kMagic ? object : nullptr;
}
inline Graph* to_graph(CUgraph h) {
  return checked<Graph, kGraphMagic>(h);
}
inline Node* to_node(CUgraphNode h) {
  return checked<Node, kNodeMagic>(h);
}
inline GraphExec* to_exec(CUgraphExec h) {
  return checked<GraphExec, kExecMagic>(h);
}
inline CUgraphNode handle_of(Node* n) {
  return reinterpret_cast<CUgraphNode>(n);
}
inline CUgraph handle_of(Graph* g) {
  return reinterpret_cast<CUgraph>(g);
}

// All of these: graph_lock() held.
Graph* make_graph();
void destroy_graph(Graph* graph);
Graph* clone_graph(const Graph* graph);
// INVALID_VALUE when a dependency is not of this graph.
CUresult add_node(Graph* graph, const CUgraphNode* deps, size_t count, CUgraphNodeType type,
                  Node** out);
void remove_node(Node* node);
std::vector<Node*> in_order(const Graph* graph);  // topological; empty when there is a cycle
bool depends_on(const Node* node, const Node* on);

CUDA_KERNEL_NODE_PARAMS_v2 widen(const CUDA_KERNEL_NODE_PARAMS_v1& params);
CUresult fill_kernel(Node* node, const CUDA_KERNEL_NODE_PARAMS_v2& params);
CUresult fill_copy(Node* node, const CUDA_MEMCPY3D* copy, CUcontext context);
CUresult fill_set(Node* node, const CUDA_MEMSET_NODE_PARAMS_v1* set, CUcontext context);
CUresult fill_host(Node* node, const CUDA_HOST_NODE_PARAMS_v1* host);
// The four above from the structure of all types; NOT_SUPPORTED for any other.
CUresult fill_work(Node* node, const CUgraphNodeParams& params);
CUresult fill_alloc(Node* node, CUDA_MEM_ALLOC_NODE_PARAMS_v1* params);

GraphExec* make_exec(const Graph* graph, uint64_t flags);  // null: the graph has a cycle
// Everything a launch queues; takes the card's memory for allocation nodes.
CUresult launch_bodies(GraphExec* exec, std::vector<Body>* out);
// A captured launch of `exec` becomes a child node.
CUresult capture_launch(Stream* stream, const GraphExec* exec);

}  // namespace allot::sim
