// Entries that build graphs: creation, nodes of every type, dependencies, queries.
#include <string.h>

#include <algorithm>

#include "graph.h"
#include "handles.h"
#include "memory.h"

using namespace allot::sim;

namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

// Adds a node and fills it; takes it away again when that fails.
template <class Fill>
CUresult add(CUgraphNode* out, CUgraph handle, const CUgraphNode* deps, size_t count,
             CUgraphNodeType type, Fill fill) {
  Lock lock(graph_lock());
  Graph* graph = to_graph(handle);
  if (out == nullptr || graph == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Node* node = nullptr;
  if (const CUresult r = add_node(graph, deps, count, type, &node); r != CUDA_SUCCESS) return r;
  if (const CUresult r = fill(node); r != CUDA_SUCCESS) {
    remove_node(node);
    return r;
  }
  *out = handle_of(node);
  return CUDA_SUCCESS;
}

CUresult fill_event(Node* node, CUevent event) {
  node->event = to_event(event);
  return node->event != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// A graph that is moved (since 12.9) may have memory nodes, and becomes the node's own.
CUresult fill_child(Node* node, CUgraph handle, bool moved = false) {
  Graph* child = to_graph(handle);
  if (child == nullptr || child == node->graph) return CUDA_ERROR_INVALID_VALUE;
  if (moved) {
    if (child->is_child) return CUDA_ERROR_INVALID_VALUE;
    node->child = child;
    child->is_child = true;
    return CUDA_SUCCESS;
  }
  for (const Node* n : child->nodes) {
    if (n->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC || n->type == CU_GRAPH_NODE_TYPE_MEM_FREE) {
      return CUDA_ERROR_NOT_SUPPORTED;
    }
  }
  node->child = clone_graph(child);
  node->child->is_child = true;
  return CUDA_SUCCESS;
}

CUresult fill_ops(Node* node, const CUDA_BATCH_MEM_OP_NODE_PARAMS_v2* p) {
  if (p == nullptr || p->paramArray == nullptr || p->count == 0) return CUDA_ERROR_INVALID_VALUE;
  node->ops.assign(p->paramArray, p->paramArray + p->count);
  node->context = p->ctx;
  return CUDA_SUCCESS;
}

CUresult fill_free(Node* node, CUdeviceptr at) {
  if (region_at(at) == nullptr) return CUDA_ERROR_INVALID_VALUE;
  node->freed = at;
  return CUDA_SUCCESS;
}

// cuGraphAddNode: one structure for every type.
CUresult fill_any(Node* node, CUgraphNodeParams* p) {
  switch (p->type) {
    case CU_GRAPH_NODE_TYPE_GRAPH:
      return fill_child(node, p->graph.graph,
                        p->graph.ownership == CU_GRAPH_CHILD_GRAPH_OWNERSHIP_MOVE);
    case CU_GRAPH_NODE_TYPE_EMPTY:
      return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
      return fill_event(node, p->eventWait.event);
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
      return fill_event(node, p->eventRecord.event);
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC: {
      CUDA_MEM_ALLOC_NODE_PARAMS_v1 params;
      memcpy(&params, &p->alloc, sizeof params);
      const CUresult r = fill_alloc(node, &params);
      p->alloc.dptr = params.dptr;
      return r;
    }
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
      return fill_free(node, p->free.dptr);
    case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
      return fill_ops(node, &p->memOp);
    default:
      return fill_work(node, *p);
  }
}

// Copies a list of nodes as the queries do: the count alone, or as many as there is room for.
CUresult give(const std::vector<Node*>& list, CUgraphNode* out, CUgraphEdgeData* edges,
              size_t* count) {
  if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (out != nullptr) {
    for (size_t i = 0; i < *count; i++) {
      out[i] = i < list.size() ? handle_of(list[i]) : nullptr;
      if (edges != nullptr) edges[i] = CUgraphEdgeData{};
    }
  }
  if (out == nullptr || *count > list.size()) *count = list.size();
  return CUDA_SUCCESS;
}

CUresult edges(CUgraph handle, CUgraphNode* from, CUgraphNode* to, CUgraphEdgeData* data,
               size_t* count) {
  Lock lock(graph_lock());
  const Graph* graph = to_graph(handle);
  if (graph == nullptr || count == nullptr || (from == nullptr) != (to == nullptr)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  size_t n = 0;
  for (Node* node : graph->nodes) {
    for (Node* dep : node->deps) {
      if (from != nullptr && n < *count) {
        from[n] = handle_of(dep);
        to[n] = handle_of(node);
        if (data != nullptr) data[n] = CUgraphEdgeData{};
      }
      n++;
    }
  }
  if (from == nullptr || *count > n) *count = n;
  return CUDA_SUCCESS;
}

CUresult dependencies(CUgraphNode handle, CUgraphNode* out, CUgraphEdgeData* data, size_t* count) {
  Lock lock(graph_lock());
  const Node* node = to_node(handle);
  return node != nullptr ? give(node->deps, out, data, count) : CUDA_ERROR_INVALID_VALUE;
}

CUresult dependents(CUgraphNode handle, CUgraphNode* out, CUgraphEdgeData* data, size_t* count) {
  Lock lock(graph_lock());
  const Node* node = to_node(handle);
  if (node == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::vector<Node*> list;
  for (Node* other : node->graph->nodes) {
    if (std::find(other->deps.begin(), other->deps.end(), node) != other->deps.end())
      list.push_back(other);
  }
  return give(list, out, data, count);
}

CUresult connect(CUgraph handle, const CUgraphNode* from, const CUgraphNode* to, size_t count,
                 bool on) {
  Lock lock(graph_lock());
  const Graph* graph = to_graph(handle);
  if (graph == nullptr || (count > 0 && (from == nullptr || to == nullptr)))
    return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < count; i++) {
    Node *f = to_node(from[i]), *t = to_node(to[i]);
    if (f == nullptr || t == nullptr || f->graph != graph || t->graph != graph || f == t) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    const bool there = std::find(t->deps.begin(), t->deps.end(), f) != t->deps.end();
    if (there == on) return CUDA_ERROR_INVALID_VALUE;
    if (on) {
      t->deps.push_back(f);
    } else {
      std::erase(t->deps, f);
    }
  }
  return CUDA_SUCCESS;
}

}  // namespace

SIM_API cuGraphCreate(CUgraph* out, unsigned flags) {
  SIM_ENTER();
  if (out == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  Lock lock(graph_lock());
  *out = handle_of(make_graph());
  return CUDA_SUCCESS;
}
SIM_API cuGraphDestroy(CUgraph handle) {
  SIM_ENTER();
  Lock lock(graph_lock());
  Graph* graph = to_graph(handle);
  if (graph == nullptr || graph->is_child) return CUDA_ERROR_INVALID_VALUE;
  destroy_graph(graph);
  return CUDA_SUCCESS;
}
SIM_API cuGraphClone(CUgraph* out, CUgraph handle) {
  SIM_ENTER();
  Lock lock(graph_lock());
  const Graph* graph = to_graph(handle);
  if (out == nullptr || graph == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = handle_of(clone_graph(graph));
  return CUDA_SUCCESS;
}
SIM_API cuGraphNodeFindInClone(CUgraphNode* out, CUgraphNode original, CUgraph clone) {
  SIM_ENTER();
  Lock lock(graph_lock());
  const Graph* graph = to_graph(clone);
  const Node* node = to_node(original);
  if (out == nullptr || graph == nullptr || node == nullptr) return CUDA_ERROR_INVALID_VALUE;
  for (Node* twin : graph->nodes) {
    if (twin->origin == node) {
      *out = handle_of(twin);
      return CUDA_SUCCESS;
    }
  }
  return CUDA_ERROR_INVALID_VALUE;
}

#define NODE_ARGS CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count
#define ADD(type, call) \
  SIM_ENTER();          \
  return add(out, graph, deps, count, type, [&](Node* node) { return call; })

SIM_API cuGraphAddKernelNode(NODE_ARGS, const CUDA_KERNEL_NODE_PARAMS_v1* p) {
  ADD(CU_GRAPH_NODE_TYPE_KERNEL,
      p != nullptr ? fill_kernel(node, widen(*p)) : CUDA_ERROR_INVALID_VALUE);
}
SIM_API cuGraphAddKernelNode_v2(NODE_ARGS, const CUDA_KERNEL_NODE_PARAMS_v2* p) {
  ADD(CU_GRAPH_NODE_TYPE_KERNEL, p != nullptr ? fill_kernel(node, *p) : CUDA_ERROR_INVALID_VALUE);
}
SIM_API cuGraphAddMemcpyNode(NODE_ARGS, const CUDA_MEMCPY3D* p, CUcontext ctx) {
  ADD(CU_GRAPH_NODE_TYPE_MEMCPY, fill_copy(node, p, ctx));
}
SIM_API cuGraphAddMemsetNode(NODE_ARGS, const CUDA_MEMSET_NODE_PARAMS_v1* p, CUcontext ctx) {
  ADD(CU_GRAPH_NODE_TYPE_MEMSET, fill_set(node, p, ctx));
}
SIM_API cuGraphAddHostNode(NODE_ARGS, const CUDA_HOST_NODE_PARAMS_v1* p) {
  ADD(CU_GRAPH_NODE_TYPE_HOST, fill_host(node, p));
}
SIM_API cuGraphAddChildGraphNode(NODE_ARGS, CUgraph child) {
  ADD(CU_GRAPH_NODE_TYPE_GRAPH, fill_child(node, child));
}
SIM_API cuGraphAddEmptyNode(NODE_ARGS) {
  ADD(CU_GRAPH_NODE_TYPE_EMPTY, (static_cast<void>(node), CUDA_SUCCESS));
}
SIM_API cuGraphAddEventRecordNode(NODE_ARGS, CUevent event) {
  ADD(CU_GRAPH_NODE_TYPE_EVENT_RECORD, fill_event(node, event));
}
SIM_API cuGraphAddEventWaitNode(NODE_ARGS, CUevent event) {
  ADD(CU_GRAPH_NODE_TYPE_WAIT_EVENT, fill_event(node, event));
}
SIM_API cuGraphAddMemAllocNode(NODE_ARGS, CUDA_MEM_ALLOC_NODE_PARAMS_v1* p) {
  ADD(CU_GRAPH_NODE_TYPE_MEM_ALLOC, fill_alloc(node, p));
}
SIM_API cuGraphAddMemFreeNode(NODE_ARGS, CUdeviceptr at) {
  ADD(CU_GRAPH_NODE_TYPE_MEM_FREE, fill_free(node, at));
}
SIM_API cuGraphAddBatchMemOpNode(NODE_ARGS, const CUDA_BATCH_MEM_OP_NODE_PARAMS_v2* p) {
  ADD(CU_GRAPH_NODE_TYPE_BATCH_MEM_OP, fill_ops(node, p));
}
SIM_API cuGraphAddNode(NODE_ARGS, CUgraphNodeParams* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  ADD(p->type, fill_any(node, p));
}
SIM_API cuGraphAddNode_v2(CUgraphNode* out, CUgraph graph, const CUgraphNode* deps,
                          const CUgraphEdgeData*, size_t count, CUgraphNodeParams* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  ADD(p->type, fill_any(node, p));
}

SIM_API cuGraphDestroyNode(CUgraphNode handle) {
  SIM_ENTER();
  Lock lock(graph_lock());
  Node* node = to_node(handle);
  if (node == nullptr) return CUDA_ERROR_INVALID_VALUE;
  remove_node(node);
  return CUDA_SUCCESS;
}
SIM_API cuGraphNodeGetType(CUgraphNode handle, CUgraphNodeType* type) {
  SIM_ENTER();
  const Node* node = to_node(handle);
  if (node == nullptr || type == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *type = node->type;
  return CUDA_SUCCESS;
}
SIM_API cuGraphGetNodes(CUgraph handle, CUgraphNode* out, size_t* count) {
  SIM_ENTER();
  Lock lock(graph_lock());
  const Graph* graph = to_graph(handle);
  return graph != nullptr ? give(graph->nodes, out, nullptr, count) : CUDA_ERROR_INVALID_VALUE;
}
SIM_API cuGraphGetRootNodes(CUgraph handle, CUgraphNode* out, size_t* count) {
  SIM_ENTER();
  Lock lock(graph_lock());
  const Graph* graph = to_graph(handle);
  if (graph == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::vector<Node*> roots;
  for (Node* node : graph->nodes) {
    if (node->deps.empty()) roots.push_back(node);
  }
  return give(roots, out, nullptr, count);
}
SIM_API cuGraphGetEdges(CUgraph g, CUgraphNode* from, CUgraphNode* to, size_t* count) {
  SIM_ENTER();
  return edges(g, from, to, nullptr, count);
}
SIM_API cuGraphGetEdges_v2(CUgraph g, CUgraphNode* from, CUgraphNode* to, CUgraphEdgeData* data,
                           size_t* count) {
  SIM_ENTER();
  return edges(g, from, to, data, count);
}
SIM_API cuGraphNodeGetDependencies(CUgraphNode n, CUgraphNode* out, size_t* count) {
  SIM_ENTER();
  return dependencies(n, out, nullptr, count);
}
SIM_API cuGraphNodeGetDependencies_v2(CUgraphNode n, CUgraphNode* out, CUgraphEdgeData* data,
                                      size_t* count) {
  SIM_ENTER();
  return dependencies(n, out, data, count);
}
SIM_API cuGraphNodeGetDependentNodes(CUgraphNode n, CUgraphNode* out, size_t* count) {
  SIM_ENTER();
  return dependents(n, out, nullptr, count);
}
SIM_API cuGraphNodeGetDependentNodes_v2(CUgraphNode n, CUgraphNode* out, CUgraphEdgeData* data,
                                        size_t* count) {
  SIM_ENTER();
  return dependents(n, out, data, count);
}
SIM_API cuGraphAddDependencies(CUgraph g, const CUgraphNode* from, const CUgraphNode* to,
                               size_t count) {
  SIM_ENTER();
  return connect(g, from, to, count, true);
}
SIM_API cuGraphAddDependencies_v2(CUgraph g, const CUgraphNode* from, const CUgraphNode* to,
                                  const CUgraphEdgeData*, size_t count) {
  SIM_ENTER();
  return connect(g, from, to, count, true);
}
SIM_API cuGraphRemoveDependencies(CUgraph g, const CUgraphNode* from, const CUgraphNode* to,
                                  size_t count) {
  SIM_ENTER();
  return connect(g, from, to, count, false);
}
SIM_API cuGraphRemoveDependencies_v2(CUgraph g, const CUgraphNode* from, const CUgraphNode* to,
                                     const CUgraphEdgeData*, size_t count) {
  SIM_ENTER();
  return connect(g, from, to, count, false);
}
SIM_API cuGraphChildGraphNodeGetGraph(CUgraphNode handle, CUgraph* out) {
  SIM_ENTER();
  const Node* node = to_node(handle);
  if (node == nullptr || node->child == nullptr || out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = handle_of(node->child);
  return CUDA_SUCCESS;
}
