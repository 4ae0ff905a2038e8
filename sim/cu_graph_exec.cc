// Entries of executable graphs: instantiation, launch, update; and the parameters of nodes, which
// are read and changed the same way in a graph and in an executable one.
#include <string.h>

#include <algorithm>

#include "graph.h"
#include "handles.h"
#include "memory.h"

using namespace allot::sim;

namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

CUresult instantiate(CUgraphExec* out, CUgraph handle, uint64_t flags) {
  Lock lock(graph_lock());
  const Graph* graph = to_graph(handle);
  if (out == nullptr || graph == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if ((flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH) != 0) return CUDA_ERROR_NOT_SUPPORTED;
  GraphExec* exec = make_exec(graph, flags);
  if (exec == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = reinterpret_cast<CUgraphExec>(exec);
  return CUDA_SUCCESS;
}

CUresult instantiate_with(CUgraphExec* out, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUresult r = instantiate(out, graph, p->flags);
  p->hErrNode_out = nullptr;
  p->result_out = r == CUDA_SUCCESS ? CUDA_GRAPH_INSTANTIATE_SUCCESS : CUDA_GRAPH_INSTANTIATE_ERROR;
  return r;
}

CUresult launch(CUgraphExec handle, CUstream stream, bool ptds) {
  Stream* s = nullptr;
  if (const CUresult r = find_stream(stream, ptds, &s); r != CUDA_SUCCESS) return r;
  std::vector<Body> bodies;
  {
    Lock lock(graph_lock());
    GraphExec* exec = to_exec(handle);
    if (exec == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (capturing(s)) return capture_launch(s, exec);
    if (const CUresult r = launch_bodies(exec, &bodies); r != CUDA_SUCCESS) return r;
  }
  return submit_all(s, std::move(bodies));
}

CUresult upload(CUgraphExec handle, CUstream stream, bool ptds) {
  Stream* s = nullptr;
  if (const CUresult r = find_stream(stream, ptds, &s); r != CUDA_SUCCESS) return r;
  Lock lock(graph_lock());
  return to_exec(handle) != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// The executable graph's copy of a node, which the application names by the original.
Node* own_node(CUgraphExec exec_handle, CUgraphNode handle, CUgraphNodeType type) {
  GraphExec* exec = to_exec(exec_handle);
  const Node* original = to_node(handle);
  if (exec == nullptr || original == nullptr) return nullptr;
  for (Node* node : exec->own->nodes) {
    if (node->origin == original && node->type == type) return node;
  }
  return nullptr;
}

Node* plain_node(CUgraphNode handle, CUgraphNodeType type) {
  Node* node = to_node(handle);
  return node != nullptr && node->type == type ? node : nullptr;
}

template <class Fill>
CUresult change(Node* node, Fill fill) {
  return node != nullptr ? fill(node) : CUDA_ERROR_INVALID_VALUE;
}

CUresult get_kernel(Node* node, CUDA_KERNEL_NODE_PARAMS_v2* out) {
  auto& body = std::get<KernelBody>(node->body);
  node->argument_pointers.clear();
  for (const Param& p : body.function->params) {
    node->argument_pointers.push_back(body.params.data() + p.offset);
  }
  *out = CUDA_KERNEL_NODE_PARAMS_v2{};
  out->func = reinterpret_cast<CUfunction>(const_cast<Function*>(body.function));
  out->gridDimX = body.grid[0];
  out->gridDimY = body.grid[1];
  out->gridDimZ = body.grid[2];
  out->blockDimX = body.block[0];
  out->blockDimY = body.block[1];
  out->blockDimZ = body.block[2];
  out->sharedMemBytes = body.shared_bytes;
  out->kernelParams = node->argument_pointers.empty() ? nullptr : node->argument_pointers.data();
  out->ctx = node->context;
  return CUDA_SUCCESS;
}

CUresult set_event(Node* node, CUevent event) {
  if (node == nullptr || to_event(event) == nullptr) return CUDA_ERROR_INVALID_VALUE;
  node->event = to_event(event);
  return CUDA_SUCCESS;
}

CUresult get_event(const Node* node, CUevent* out) {
  if (node == nullptr || out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = reinterpret_cast<CUevent>(node->event);
  return CUDA_SUCCESS;
}

CUresult set_child(Node* node, CUgraph handle) {
  const Graph* child = to_graph(handle);
  if (node == nullptr || child == nullptr || child->nodes.size() != node->child->nodes.size()) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Graph* twin = clone_graph(child);
  twin->is_child = true;
  destroy_graph(node->child);
  node->child = twin;
  return CUDA_SUCCESS;
}

CUresult set_any(Node* node, const CUgraphNodeParams* p) {
  if (node == nullptr || p == nullptr || p->type != node->type) return CUDA_ERROR_INVALID_VALUE;
  switch (p->type) {
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
      return set_event(node, p->eventRecord.event);
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
      return set_event(node, p->eventWait.event);
    case CU_GRAPH_NODE_TYPE_GRAPH:
      return set_child(node, p->graph.graph);
    default:
      return fill_work(node, *p);
  }
}

// Same nodes in the same order with the same edges: then the parameters are taken over.
CUgraphExecUpdateResult update(GraphExec* exec, const Graph* graph, const Node** culprit) {
  const std::vector<Node*>& own = exec->own->nodes;
  if (own.size() != graph->nodes.size()) return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
  const auto index_in = [](const std::vector<Node*>& nodes, const Node* node) {
    return std::find(nodes.begin(), nodes.end(), node) - nodes.begin();
  };
  for (size_t i = 0; i < own.size(); i++) {
    const Node* theirs = graph->nodes[i];
    *culprit = theirs;
    if (own[i]->type != theirs->type) return CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED;
    if (own[i]->deps.size() != theirs->deps.size())
      return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
    for (size_t d = 0; d < theirs->deps.size(); d++) {
      if (index_in(own, own[i]->deps[d]) != index_in(graph->nodes, theirs->deps[d])) {
        return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
      }
    }
    if (theirs->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC ||
        theirs->type == CU_GRAPH_NODE_TYPE_MEM_FREE) {
      return CU_GRAPH_EXEC_UPDATE_ERROR_NOT_SUPPORTED;
    }
  }
  Graph* fresh = clone_graph(graph);
  for (size_t i = 0; i < own.size();
       i++) {  // the application keeps naming nodes of the first graph
    fresh->nodes[i]->origin = own[i]->origin;
    fresh->nodes[i]->enabled = own[i]->enabled;
  }
  destroy_graph(exec->own);
  exec->own = fresh;
  *culprit = nullptr;
  return CU_GRAPH_EXEC_UPDATE_SUCCESS;
}

}  // namespace

SIM_API cuGraphInstantiate(CUgraphExec* out, CUgraph g, CUgraphNode* error, char* log,
                           size_t size) {
  SIM_ENTER();
  if (error != nullptr) *error = nullptr;
  if (log != nullptr && size > 0) log[0] = '\0';
  return instantiate(out, g, 0);
}
SIM_API cuGraphInstantiate_v2(CUgraphExec* out, CUgraph g, CUgraphNode* error, char* log,
                              size_t size) {
  return cuGraphInstantiate(out, g, error, log, size);
}
SIM_API cuGraphInstantiateWithFlags(CUgraphExec* out, CUgraph g, unsigned long long flags) {
  SIM_ENTER();
  return instantiate(out, g, flags);
}
SIM_API cuGraphInstantiateWithParams(CUgraphExec* out, CUgraph g,
                                     CUDA_GRAPH_INSTANTIATE_PARAMS* p) {
  SIM_ENTER();
  return instantiate_with(out, g, p);
}
SIM_API cuGraphInstantiateWithParams_ptsz(CUgraphExec* out, CUgraph g,
                                          CUDA_GRAPH_INSTANTIATE_PARAMS* p) {
  SIM_ENTER();
  return instantiate_with(out, g, p);
}
SIM_API cuGraphExecGetFlags(CUgraphExec handle, cuuint64_t* flags) {
  SIM_ENTER();
  const GraphExec* exec = to_exec(handle);
  if (exec == nullptr || flags == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *flags = exec->flags;
  return CUDA_SUCCESS;
}
SIM_API cuGraphExecDestroy(CUgraphExec handle) {
  SIM_ENTER();
  Lock lock(graph_lock());
  GraphExec* exec = to_exec(handle);
  if (exec == nullptr) return CUDA_ERROR_INVALID_VALUE;
  destroy_graph(exec->own);
  Handles<GraphExec>::bury(exec);
  return CUDA_SUCCESS;
}

SIM_API cuGraphLaunch(CUgraphExec exec, CUstream s) {
  SIM_ENTER();
  return launch(exec, s, false);
}
SIM_API cuGraphLaunch_ptsz(CUgraphExec exec, CUstream s) {
  SIM_ENTER();
  return launch(exec, s, true);
}
SIM_API cuGraphUpload(CUgraphExec exec, CUstream s) {
  SIM_ENTER();
  return upload(exec, s, false);
}
SIM_API cuGraphUpload_ptsz(CUgraphExec exec, CUstream s) {
  SIM_ENTER();
  return upload(exec, s, true);
}

SIM_API cuGraphExecUpdate_v2(CUgraphExec handle, CUgraph g, CUgraphExecUpdateResultInfo* info) {
  SIM_ENTER();
  Lock lock(graph_lock());
  GraphExec* exec = to_exec(handle);
  const Graph* graph = to_graph(g);
  if (exec == nullptr || graph == nullptr || info == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const Node* culprit = nullptr;
  info->result = update(exec, graph, &culprit);
  info->errorNode = handle_of(const_cast<Node*>(culprit));
  info->errorFromNode = nullptr;
  return info->result == CU_GRAPH_EXEC_UPDATE_SUCCESS ? CUDA_SUCCESS
                                                      : CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
}
SIM_API cuGraphExecUpdate(CUgraphExec exec, CUgraph g, CUgraphNode* error,
                          CUgraphExecUpdateResult* result) {
  CUgraphExecUpdateResultInfo info{};
  const CUresult r = cuGraphExecUpdate_v2(exec, g, &info);
  if (error != nullptr) *error = info.errorNode;
  if (result != nullptr) *result = info.result;
  return r;
}

SIM_API cuGraphNodeSetEnabled(CUgraphExec exec, CUgraphNode handle, unsigned on) {
  SIM_ENTER();
  Lock lock(graph_lock());
  const Node* original = to_node(handle);
  Node* node = original != nullptr ? own_node(exec, handle, original->type) : nullptr;
  if (node == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (node->type > CU_GRAPH_NODE_TYPE_MEMSET) return CUDA_ERROR_NOT_SUPPORTED;
  node->enabled = on != 0;
  return CUDA_SUCCESS;
}
SIM_API cuGraphNodeGetEnabled(CUgraphExec exec, CUgraphNode handle, unsigned* on) {
  SIM_ENTER();
  Lock lock(graph_lock());
  const Node* original = to_node(handle);
  const Node* node = original != nullptr ? own_node(exec, handle, original->type) : nullptr;
  if (node == nullptr || on == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *on = node->enabled ? 1 : 0;
  return CUDA_SUCCESS;
}

// In a graph (PLAIN) and in an executable one (EXEC): the node to change.
#define PLAIN(type) plain_node(n, CU_GRAPH_NODE_TYPE_##type)
#define EXEC(type) own_node(exec, n, CU_GRAPH_NODE_TYPE_##type)
#define CHANGE(node_expression, call)                \
  SIM_ENTER();                                       \
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE; \
  Lock lock(graph_lock());                           \
  return change(node_expression, [&](Node* node) { return call; })

SIM_API cuGraphKernelNodeGetParams(CUgraphNode n, CUDA_KERNEL_NODE_PARAMS_v1* p) {
  CUDA_KERNEL_NODE_PARAMS_v2 wide{};
  CHANGE(PLAIN(KERNEL), (get_kernel(node, &wide), memcpy(p, &wide, sizeof *p), CUDA_SUCCESS));
}
SIM_API cuGraphKernelNodeGetParams_v2(CUgraphNode n, CUDA_KERNEL_NODE_PARAMS_v2* p) {
  CHANGE(PLAIN(KERNEL), get_kernel(node, p));
}
SIM_API cuGraphKernelNodeSetParams(CUgraphNode n, const CUDA_KERNEL_NODE_PARAMS_v1* p) {
  CHANGE(PLAIN(KERNEL), fill_kernel(node, widen(*p)));
}
SIM_API cuGraphKernelNodeSetParams_v2(CUgraphNode n, const CUDA_KERNEL_NODE_PARAMS_v2* p) {
  CHANGE(PLAIN(KERNEL), fill_kernel(node, *p));
}
SIM_API cuGraphExecKernelNodeSetParams(CUgraphExec exec, CUgraphNode n,
                                       const CUDA_KERNEL_NODE_PARAMS_v1* p) {
  CHANGE(EXEC(KERNEL), fill_kernel(node, widen(*p)));
}
SIM_API cuGraphExecKernelNodeSetParams_v2(CUgraphExec exec, CUgraphNode n,
                                          const CUDA_KERNEL_NODE_PARAMS_v2* p) {
  CHANGE(EXEC(KERNEL), fill_kernel(node, *p));
}
SIM_API cuGraphMemcpyNodeGetParams(CUgraphNode n, CUDA_MEMCPY3D* p) {
  CHANGE(PLAIN(MEMCPY), (*p = node->copy, CUDA_SUCCESS));
}
SIM_API cuGraphMemcpyNodeSetParams(CUgraphNode n, const CUDA_MEMCPY3D* p) {
  CHANGE(PLAIN(MEMCPY), fill_copy(node, p, node->context));
}
SIM_API cuGraphExecMemcpyNodeSetParams(CUgraphExec exec, CUgraphNode n, const CUDA_MEMCPY3D* p,
                                       CUcontext c) {
  CHANGE(EXEC(MEMCPY), fill_copy(node, p, c));
}
SIM_API cuGraphMemsetNodeGetParams(CUgraphNode n, CUDA_MEMSET_NODE_PARAMS_v1* p) {
  CHANGE(PLAIN(MEMSET), (*p = node->set, CUDA_SUCCESS));
}
SIM_API cuGraphMemsetNodeSetParams(CUgraphNode n, const CUDA_MEMSET_NODE_PARAMS_v1* p) {
  CHANGE(PLAIN(MEMSET), fill_set(node, p, node->context));
}
SIM_API cuGraphExecMemsetNodeSetParams(CUgraphExec exec, CUgraphNode n,
                                       const CUDA_MEMSET_NODE_PARAMS_v1* p, CUcontext c) {
  CHANGE(EXEC(MEMSET), fill_set(node, p, c));
}
SIM_API cuGraphHostNodeGetParams(CUgraphNode n, CUDA_HOST_NODE_PARAMS_v1* p) {
  CHANGE(PLAIN(HOST),
         (*p = {std::get<HostBody>(node->body).function, std::get<HostBody>(node->body).data},
          CUDA_SUCCESS));
}
SIM_API cuGraphHostNodeSetParams(CUgraphNode n, const CUDA_HOST_NODE_PARAMS_v1* p) {
  CHANGE(PLAIN(HOST), fill_host(node, p));
}
SIM_API cuGraphExecHostNodeSetParams(CUgraphExec exec, CUgraphNode n,
                                     const CUDA_HOST_NODE_PARAMS_v1* p) {
  CHANGE(EXEC(HOST), fill_host(node, p));
}
SIM_API cuGraphExecChildGraphNodeSetParams(CUgraphExec exec, CUgraphNode n, CUgraph p) {
  CHANGE(EXEC(GRAPH), set_child(node, p));
}
SIM_API cuGraphEventRecordNodeGetEvent(CUgraphNode n, CUevent* p) {
  CHANGE(PLAIN(EVENT_RECORD), get_event(node, p));
}
SIM_API cuGraphEventRecordNodeSetEvent(CUgraphNode n, CUevent p) {
  CHANGE(PLAIN(EVENT_RECORD), set_event(node, p));
}
SIM_API cuGraphExecEventRecordNodeSetEvent(CUgraphExec exec, CUgraphNode n, CUevent p) {
  CHANGE(EXEC(EVENT_RECORD), set_event(node, p));
}
SIM_API cuGraphEventWaitNodeGetEvent(CUgraphNode n, CUevent* p) {
  CHANGE(PLAIN(WAIT_EVENT), get_event(node, p));
}
SIM_API cuGraphEventWaitNodeSetEvent(CUgraphNode n, CUevent p) {
  CHANGE(PLAIN(WAIT_EVENT), set_event(node, p));
}
SIM_API cuGraphExecEventWaitNodeSetEvent(CUgraphExec exec, CUgraphNode n, CUevent p) {
  CHANGE(EXEC(WAIT_EVENT), set_event(node, p));
}
SIM_API cuGraphMemAllocNodeGetParams(CUgraphNode n, CUDA_MEM_ALLOC_NODE_PARAMS_v1* p) {
  CHANGE(PLAIN(MEM_ALLOC), (*p = node->alloc, CUDA_SUCCESS));
}
SIM_API cuGraphMemFreeNodeGetParams(CUgraphNode n, CUdeviceptr* p) {
  CHANGE(PLAIN(MEM_FREE), (*p = node->freed, CUDA_SUCCESS));
}
SIM_API cuGraphNodeSetParams(CUgraphNode n, CUgraphNodeParams* p) {
  CHANGE(to_node(n), set_any(node, p));
}
SIM_API cuGraphExecNodeSetParams(CUgraphExec exec, CUgraphNode n, CUgraphNodeParams* p) {
  CHANGE(own_node(exec, n, p->type), set_any(node, p));
}

// Attributes of kernel nodes (priority, cluster shape, ...): kept, and of no effect.
SIM_API cuGraphKernelNodeGetAttribute(CUgraphNode n, int which, CUlaunchAttributeValue* p) {
  SIM_ENTER();
  Lock lock(graph_lock());
  const Node* node = PLAIN(KERNEL);
  if (node == nullptr || p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  memset(p, 0, sizeof *p);
  for (const auto& [id, value] : node->attributes) {
    if (id == which) *p = value;
  }
  return CUDA_SUCCESS;
}
SIM_API cuGraphKernelNodeSetAttribute(CUgraphNode n, int which, const CUlaunchAttributeValue* p) {
  SIM_ENTER();
  Lock lock(graph_lock());
  Node* node = PLAIN(KERNEL);
  if (node == nullptr || p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::erase_if(node->attributes, [&](const auto& a) { return a.first == which; });
  node->attributes.emplace_back(which, *p);
  return CUDA_SUCCESS;
}
SIM_API cuGraphKernelNodeCopyAttributes(CUgraphNode to, CUgraphNode from) {
  SIM_ENTER();
  Lock lock(graph_lock());
  Node* t = plain_node(to, CU_GRAPH_NODE_TYPE_KERNEL);
  const Node* f = plain_node(from, CU_GRAPH_NODE_TYPE_KERNEL);
  if (t == nullptr || f == nullptr) return CUDA_ERROR_INVALID_VALUE;
  t->attributes = f->attributes;
  return CUDA_SUCCESS;
}
