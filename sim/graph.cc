// The structure of graphs, their copies, and what a launch queues.
#include "graph.h"

#include <string.h>

#include <algorithm>
#include <map>

#include "copy.h"
#include "handles.h"
#include "memory.h"

namespace allot::sim {

std::recursive_mutex& graph_lock() {
  static auto& mutex = *new std::recursive_mutex;
  return mutex;
}

Graph* make_graph() {
  return Handles<Graph>::make();
}

static void bury_node(Node* node) {
  if (node->child != nullptr) destroy_graph(node->child);
  node->child = nullptr;
  node->region.reset();
  Handles<Node>::bury(node);
}

void destroy_graph(Graph* graph) {
  for (Node* node : graph->nodes) bury_node(node);
  graph->nodes.clear();
  Handles<Graph>::bury(graph);
}

Graph* clone_graph(const Graph* graph) {
  Graph* copy = make_graph();
  copy->original = graph;
  std::map<const Node*, Node*> made;
  for (Node* node : graph->nodes) {
    Node* twin = Handles<Node>::make();
    *twin = *node;
    twin->graph = copy;
    twin->origin = node;
    twin->argument_pointers.clear();
    if (node->child != nullptr) {
      twin->child = clone_graph(node->child);
      twin->child->is_child = true;
    }
    made[node] = twin;
    copy->nodes.push_back(twin);
  }
  for (Node* twin : copy->nodes) {
    for (Node*& dep : twin->deps) dep = made[dep];
  }
  return copy;
}

CUresult add_node(Graph* graph, const CUgraphNode* deps, size_t count, CUgraphNodeType type,
                  Node** out) {
  if (count > 0 && deps == nullptr) return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < count; i++) {
    const Node* dep = to_node(deps[i]);
    if (dep == nullptr || dep->graph != graph) return CUDA_ERROR_INVALID_VALUE;
  }
  Node* node = Handles<Node>::make();
  node->graph = graph;
  node->type = type;
  for (size_t i = 0; i < count; i++) node->deps.push_back(to_node(deps[i]));
  graph->nodes.push_back(node);
  *out = node;
  return CUDA_SUCCESS;
}

void remove_node(Node* node) {
  Graph* graph = node->graph;
  std::erase(graph->nodes, node);
  for (Node* other : graph->nodes) std::erase(other->deps, node);
  bury_node(node);
}

std::vector<Node*> in_order(const Graph* graph) {
  std::map<const Node*, size_t> open;
  std::map<const Node*, std::vector<Node*>> followers;
  std::vector<Node*> order;
  for (Node* node : graph->nodes) {
    open[node] = node->deps.size();
    for (const Node* dep : node->deps) followers[dep].push_back(node);
    if (node->deps.empty()) order.push_back(node);
  }
  for (size_t i = 0; i < order.size(); i++) {
    for (Node* next : followers[order[i]]) {
      if (--open[next] == 0) order.push_back(next);
    }
  }
  return order.size() == graph->nodes.size() ? order : std::vector<Node*>{};
}

bool depends_on(const Node* node, const Node* on) {
  if (node == on) return true;
  return std::any_of(node->deps.begin(), node->deps.end(),
                     [&](const Node* dep) { return depends_on(dep, on); });
}

CUDA_KERNEL_NODE_PARAMS_v2 widen(const CUDA_KERNEL_NODE_PARAMS_v1& params) {
  CUDA_KERNEL_NODE_PARAMS_v2 wide{};
  memcpy(&wide, &params, sizeof params);  // the first version is the beginning of the second
  return wide;
}

CUresult fill_kernel(Node* node, const CUDA_KERNEL_NODE_PARAMS_v2& p) {
  const void* function = p.func != nullptr ? static_cast<const void*>(p.func) : p.kern;
  KernelBody body;
  const Shape shape{{p.gridDimX, p.gridDimY, p.gridDimZ},
                    {p.blockDimX, p.blockDimY, p.blockDimZ},
                    p.sharedMemBytes};
  if (const CUresult r = make_kernel(function, shape, p.kernelParams, p.extra, &body);
      r != CUDA_SUCCESS) {
    return r;
  }
  node->body = std::move(body);
  node->context = p.ctx;
  return CUDA_SUCCESS;
}

CUresult fill_copy(Node* node, const CUDA_MEMCPY3D* copy, CUcontext context) {
  if (copy == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CopyBody body;
  if (const CUresult r = resolve_copy(*copy, &body); r != CUDA_SUCCESS) return r;
  node->body = body;
  node->copy = *copy;
  node->context = context;
  return CUDA_SUCCESS;
}

CUresult fill_set(Node* node, const CUDA_MEMSET_NODE_PARAMS_v1* set, CUcontext context) {
  if (set == nullptr) return CUDA_ERROR_INVALID_VALUE;
  SetBody body;
  const CUresult r = resolve_set(set->dst, set->pitch, set->value, set->elementSize, set->width,
                                 set->height, &body);
  if (r != CUDA_SUCCESS) return r;
  node->body = body;
  node->set = *set;
  node->context = context;
  return CUDA_SUCCESS;
}

CUresult fill_host(Node* node, const CUDA_HOST_NODE_PARAMS_v1* host) {
  if (host == nullptr || host->fn == nullptr) return CUDA_ERROR_INVALID_VALUE;
  node->body = HostBody{host->fn, host->userData};
  return CUDA_SUCCESS;
}

CUresult fill_work(Node* node, const CUgraphNodeParams& p) {
  switch (p.type) {
    case CU_GRAPH_NODE_TYPE_KERNEL: {
      CUDA_KERNEL_NODE_PARAMS_v2 params;
      static_assert(sizeof params == sizeof p.kernel);
      memcpy(&params, &p.kernel, sizeof params);
      return fill_kernel(node, params);
    }
    case CU_GRAPH_NODE_TYPE_MEMCPY:
      return fill_copy(node, &p.memcpy.copyParams, p.memcpy.copyCtx);
    case CU_GRAPH_NODE_TYPE_MEMSET: {
      CUDA_MEMSET_NODE_PARAMS_v1 params;
      memcpy(&params, &p.memset, sizeof params);
      return fill_set(node, &params, p.memset.ctx);
    }
    case CU_GRAPH_NODE_TYPE_HOST: {
      const CUDA_HOST_NODE_PARAMS_v1 params{p.host.fn, p.host.userData};
      return fill_host(node, &params);
    }
    default:
      return CUDA_ERROR_NOT_SUPPORTED;
  }
}

CUresult fill_alloc(Node* node, CUDA_MEM_ALLOC_NODE_PARAMS_v1* params) {
  if (params == nullptr || params->bytesize == 0) return CUDA_ERROR_INVALID_VALUE;
  if (params->poolProps.location.type != CU_MEM_LOCATION_TYPE_DEVICE)
    return CUDA_ERROR_NOT_SUPPORTED;
  if (!valid_device(params->poolProps.location.id)) return CUDA_ERROR_INVALID_DEVICE;
  uint64_t address = 0;
  GraphRegion* region = make_region(params->poolProps.location.id, params->bytesize, &address);
  if (region == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  params->dptr = address;
  node->region = std::make_shared<RegionOwner>(region);
  node->alloc = *params;
  return CUDA_SUCCESS;
}

GraphExec* make_exec(const Graph* graph, uint64_t flags) {
  if (in_order(graph).empty() && !graph->nodes.empty()) return nullptr;
  GraphExec* exec = Handles<GraphExec>::make();
  exec->own = clone_graph(graph);
  exec->flags = flags;
  return exec;
}

static void add_ops(const Node* node, std::vector<Body>* out) {
  for (const CUstreamBatchMemOpParams& op : node->ops) {
    const bool wide = op.operation == CU_STREAM_MEM_OP_WAIT_VALUE_64 ||
                      op.operation == CU_STREAM_MEM_OP_WRITE_VALUE_64;
    const bool wait = op.operation == CU_STREAM_MEM_OP_WAIT_VALUE_32 ||
                      op.operation == CU_STREAM_MEM_OP_WAIT_VALUE_64;
    if (op.operation == CU_STREAM_MEM_OP_BARRIER) continue;
    // Both halves of the union have the same layout.
    out->push_back(ValueBody{wait, wide, op.waitValue.address,
                             wide ? op.waitValue.value64 : op.waitValue.value, op.waitValue.flags});
  }
}

static CUresult add_bodies(const Graph* graph, uint64_t flags, std::vector<Body>* out) {
  for (Node* node : in_order(graph)) {
    if (!node->enabled) continue;
    switch (node->type) {
      case CU_GRAPH_NODE_TYPE_EMPTY:
        break;
      case CU_GRAPH_NODE_TYPE_GRAPH:
        if (const CUresult r = add_bodies(node->child, flags, out); r != CUDA_SUCCESS) return r;
        break;
      case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
        out->push_back(RecordBody{node->event->state, ++node->event->state->recorded});
        break;
      case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
        if (node->event->state->recorded != 0) {
          out->push_back(WaitBody{node->event->state, node->event->state->recorded});
        }
        break;
      case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
        if (const CUresult r = back_region(node->region->region); r != CUDA_SUCCESS) return r;
        break;
      case CU_GRAPH_NODE_TYPE_MEM_FREE:
        out->push_back(TaskBody{[at = node->freed] { free_graph_memory(at); }});
        break;
      case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
        add_ops(node, out);
        break;
      default:
        out->push_back(node->body);
    }
  }
  return CUDA_SUCCESS;
}

CUresult launch_bodies(GraphExec* exec, std::vector<Body>* out) {
  if (const CUresult r = add_bodies(exec->own, exec->flags, out); r != CUDA_SUCCESS) return r;
  if (out->empty()) out->push_back(EmptyBody{});
  return CUDA_SUCCESS;
}

}  // namespace allot::sim
