// Stream capture: work submitted to a capturing stream becomes nodes of a graph.
//
// A stream of a capture carries the set of nodes that its next work depends on. Recording an event
// copies the set to the event, waiting for such an event adds it to the waiting stream and so draws
// that stream into the capture.
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "both_streams.h"
#include "graph.h"
#include "handles.h"
#include "memory.h"

namespace allot::sim {
namespace {

std::atomic<int> g_active{0};  // captures under way
std::vector<std::shared_ptr<Capture>>& active() {
  static auto& list = *new std::vector<std::shared_ptr<Capture>>;
  return list;
}
thread_local CUstreamCaptureMode t_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

uint64_t this_thread() {
  return static_cast<uint64_t>(syscall(SYS_gettid));
}

CUresult invalidate(Capture* capture, CUresult why) {
  capture->invalid = true;
  return why;
}

void leave(Stream* s) {
  s->in_capture = false;
  s->capture.reset();
  s->capture_nodes.clear();
}

void end(const std::shared_ptr<Capture>& capture) {
  capture->ended = true;
  for (Stream* s : capture->streams) leave(s);
  capture->streams.clear();
  std::erase(active(), capture);
  g_active--;
}

void join(Stream* s, const std::shared_ptr<Capture>& capture, std::vector<CUgraphNode> nodes) {
  s->capture = capture;
  s->capture_nodes = std::move(nodes);
  s->in_capture = true;
  capture->streams.push_back(s);
}

CUresult begin(CUstream handle, bool ptds, CUstreamCaptureMode mode, Graph* into,
               const CUgraphNode* deps, size_t count) {
  Stream* s = nullptr;
  if (const CUresult r = find_stream(handle, ptds, &s); r != CUDA_SUCCESS) return r;
  if (s->legacy) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  std::lock_guard<std::recursive_mutex> lock(graph_lock());
  if (s->capture != nullptr) return CUDA_ERROR_ILLEGAL_STATE;
  static uint64_t last_id = 0;
  auto capture = std::make_shared<Capture>();
  capture->id = ++last_id;
  capture->graph = into != nullptr ? into : make_graph();
  capture->into_given = into != nullptr;
  capture->mode = mode;
  capture->origin = s;
  capture->thread = this_thread();
  active().push_back(capture);
  g_active++;
  join(s, capture, std::vector<CUgraphNode>(deps, deps + count));
  return CUDA_SUCCESS;
}

// Every stream of the capture must have come back to the one it began in.
bool all_joined(const Capture& capture) {
  for (const Stream* s : capture.streams) {
    for (CUgraphNode tip : s->capture_nodes) {
      const Node* node = to_node(tip);
      const auto& ends = capture.origin->capture_nodes;
      if (node != nullptr && std::none_of(ends.begin(), ends.end(), [&](CUgraphNode e) {
            return depends_on(to_node(e), node);
          })) {
        return false;
      }
    }
  }
  return true;
}

CUresult finish(CUstream handle, bool ptds, CUgraph* out) {
  Stream* s = nullptr;
  if (const CUresult r = find_stream(handle, ptds, &s); r != CUDA_SUCCESS) return r;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard<std::recursive_mutex> lock(graph_lock());
  std::shared_ptr<Capture> capture = s->capture;
  if (capture == nullptr) return CUDA_ERROR_ILLEGAL_STATE;
  if (capture->origin != s) return invalidate(capture.get(), CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
  if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture->thread != this_thread()) {
    return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
  }
  CUresult result = CUDA_SUCCESS;
  if (capture->invalid) {
    result = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  } else if (!all_joined(*capture)) {
    result = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
  }
  end(capture);
  *out = result == CUDA_SUCCESS ? handle_of(capture->graph) : nullptr;
  if (result != CUDA_SUCCESS && !capture->into_given) destroy_graph(capture->graph);
  return result;
}

// A node behind everything `s` has captured so far. graph_lock() held.
CUresult append(Stream* s, CUgraphNodeType type, Node** out) {
  Capture* capture = s->capture.get();
  if (capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  const CUresult r =
      add_node(capture->graph, s->capture_nodes.data(), s->capture_nodes.size(), type, out);
  if (r == CUDA_SUCCESS) s->capture_nodes.assign(1, handle_of(*out));
  return r;
}

CUgraphNodeType type_of(const Body& body) {
  if (std::holds_alternative<KernelBody>(body)) return CU_GRAPH_NODE_TYPE_KERNEL;
  if (std::holds_alternative<CopyBody>(body)) return CU_GRAPH_NODE_TYPE_MEMCPY;
  if (std::holds_alternative<SetBody>(body)) return CU_GRAPH_NODE_TYPE_MEMSET;
  if (std::holds_alternative<HostBody>(body)) return CU_GRAPH_NODE_TYPE_HOST;
  if (std::holds_alternative<ValueBody>(body)) return CU_GRAPH_NODE_TYPE_BATCH_MEM_OP;
  return CU_GRAPH_NODE_TYPE_EMPTY;
}

// What GetParams of a captured node gives back.
void describe(Node* node) {
  if (const auto* copy = std::get_if<CopyBody>(&node->body)) {
    node->copy.srcMemoryType = node->copy.dstMemoryType = CU_MEMORYTYPE_UNIFIED;
    node->copy.srcDevice = copy->from.base;
    node->copy.dstDevice = copy->to.base;
    node->copy.srcPitch = copy->from.row;
    node->copy.dstPitch = copy->to.row;
    node->copy.WidthInBytes = copy->width;
    node->copy.Height = copy->height;
    node->copy.Depth = copy->depth;
  } else if (const auto* set = std::get_if<SetBody>(&node->body)) {
    node->set = CUDA_MEMSET_NODE_PARAMS_v1{set->base,    set->pitch, set->value,
                                           set->element, set->width, set->height};
  } else if (const auto* value = std::get_if<ValueBody>(&node->body)) {
    CUstreamBatchMemOpParams op{};
    op.operation =
        value->wait
            ? (value->wide ? CU_STREAM_MEM_OP_WAIT_VALUE_64 : CU_STREAM_MEM_OP_WAIT_VALUE_32)
            : (value->wide ? CU_STREAM_MEM_OP_WRITE_VALUE_64 : CU_STREAM_MEM_OP_WRITE_VALUE_32);
    op.waitValue.address = value->address;
    op.waitValue.value64 = value->value;
    op.waitValue.flags = value->flags;
    node->ops.push_back(op);
  }
}

}  // namespace

CUresult capture_body(Stream* s, Body&& body) {
  std::lock_guard<std::recursive_mutex> lock(graph_lock());
  if (s->capture == nullptr) return submit(s, std::move(body));
  if (std::holds_alternative<TaskBody>(body) || std::holds_alternative<CallbackBody>(body)) {
    return invalidate(s->capture.get(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
  Node* node = nullptr;
  if (const CUresult r = append(s, type_of(body), &node); r != CUDA_SUCCESS) return r;
  node->body = std::move(body);
  node->context = reinterpret_cast<CUcontext>(s->context);
  describe(node);
  return CUDA_SUCCESS;
}

CUresult capture_launch(Stream* s, const GraphExec* exec) {
  Node* node = nullptr;
  if (const CUresult r = append(s, CU_GRAPH_NODE_TYPE_GRAPH, &node); r != CUDA_SUCCESS) return r;
  node->child = clone_graph(exec->own);
  node->child->is_child = true;
  return CUDA_SUCCESS;
}

CUresult capture_record(Stream* s, Event* event) {
  std::lock_guard<std::recursive_mutex> lock(graph_lock());
  if (s->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  event->capture = s->capture;
  event->capture_nodes = s->capture_nodes;
  return CUDA_SUCCESS;
}

CUresult capture_wait(Stream* s, Event* event, bool* done) {
  *done = false;
  if (g_active.load() == 0 && event->capture == nullptr) return CUDA_SUCCESS;
  std::lock_guard<std::recursive_mutex> lock(graph_lock());
  std::shared_ptr<Capture> capture = event->capture;
  if (capture == nullptr) {
    if (s->capture == nullptr) return CUDA_SUCCESS;
    return invalidate(s->capture.get(), CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
  }
  *done = true;
  if (capture->ended) return CUDA_ERROR_CAPTURED_EVENT;
  if (s->legacy) return invalidate(capture.get(), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  if (capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (s->capture == nullptr) {
    join(s, capture, event->capture_nodes);
    return CUDA_SUCCESS;
  }
  if (s->capture != capture) return invalidate(capture.get(), CUDA_ERROR_STREAM_CAPTURE_MERGE);
  for (CUgraphNode node : event->capture_nodes) {
    if (std::find(s->capture_nodes.begin(), s->capture_nodes.end(), node) ==
        s->capture_nodes.end()) {
      s->capture_nodes.push_back(node);
    }
  }
  return CUDA_SUCCESS;
}

CUresult capture_allocation(Stream* s, CUdevice device, size_t bytes, CUdeviceptr* out) {
  std::lock_guard<std::recursive_mutex> lock(graph_lock());
  Node* node = nullptr;
  if (const CUresult r = append(s, CU_GRAPH_NODE_TYPE_MEM_ALLOC, &node); r != CUDA_SUCCESS)
    return r;
  CUDA_MEM_ALLOC_NODE_PARAMS_v1 params{};
  params.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  params.poolProps.location = CUmemLocation{CU_MEM_LOCATION_TYPE_DEVICE, device};
  params.bytesize = bytes;
  if (const CUresult r = fill_alloc(node, &params); r != CUDA_SUCCESS) {
    return invalidate(s->capture.get(), r);
  }
  *out = params.dptr;
  return CUDA_SUCCESS;
}

CUresult capture_free(Stream* s, CUdeviceptr address) {
  std::lock_guard<std::recursive_mutex> lock(graph_lock());
  if (region_at(address) == nullptr) {
    return invalidate(s->capture.get(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
  Node* node = nullptr;
  if (const CUresult r = append(s, CU_GRAPH_NODE_TYPE_MEM_FREE, &node); r != CUDA_SUCCESS) return r;
  node->freed = address;
  return CUDA_SUCCESS;
}

CUresult refuse_in_capture(Stream* s) {
  if (__builtin_expect(g_active.load(std::memory_order_relaxed) == 0, 1)) return CUDA_SUCCESS;
  std::lock_guard<std::recursive_mutex> lock(graph_lock());
  if (s != nullptr && s->capture != nullptr) {
    return invalidate(s->capture.get(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
  if (s != nullptr && !s->legacy) return CUDA_SUCCESS;
  return refuse_unsafe();
}

CUresult refuse_unsafe() {
  if (__builtin_expect(g_active.load(std::memory_order_relaxed) == 0, 1)) return CUDA_SUCCESS;
  if (t_mode == CU_STREAM_CAPTURE_MODE_RELAXED) return CUDA_SUCCESS;
  std::lock_guard<std::recursive_mutex> lock(graph_lock());
  for (const auto& capture : active()) {
    if (capture->mode == CU_STREAM_CAPTURE_MODE_RELAXED) continue;
    const bool own = capture->thread == this_thread();
    const bool everybody =
        capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL && t_mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
    if (own || everybody) return invalidate(capture.get(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
  return CUDA_SUCCESS;
}

}  // namespace allot::sim

using namespace allot::sim;

namespace {

CUresult status_of(CUstream handle, bool ptds, CUstreamCaptureStatus* status, cuuint64_t* id,
                   CUgraph* graph, const CUgraphNode** deps, const CUgraphEdgeData** edges,
                   size_t* count) {
  Stream* s = nullptr;
  if (const CUresult r = find_stream(handle, ptds, &s); r != CUDA_SUCCESS) return r;
  if (status == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard<std::recursive_mutex> lock(graph_lock());
  const Capture* capture = s->capture.get();
  *status = capture == nullptr ? CU_STREAM_CAPTURE_STATUS_NONE
            : capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                               : CU_STREAM_CAPTURE_STATUS_ACTIVE;
  if (capture == nullptr) {
    // Asking about the legacy stream is an error while a blocking stream of its context captures.
    if (!s->legacy) return CUDA_SUCCESS;
    std::lock_guard<std::mutex> streams_lock(s->context->mutex);
    for (const Stream* other : s->context->streams) {
      if (capturing(other) && (other->flags & CU_STREAM_NON_BLOCKING) == 0) {
        return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
      }
    }
    return CUDA_SUCCESS;
  }
  if (id != nullptr) *id = capture->id;
  if (graph != nullptr) *graph = handle_of(capture->graph);
  if (deps != nullptr) *deps = s->capture_nodes.data();
  if (edges != nullptr) *edges = nullptr;
  if (count != nullptr) *count = s->capture_nodes.size();
  return CUDA_SUCCESS;
}

CUresult update_deps(CUstream handle, bool ptds, const CUgraphNode* deps, size_t count,
                     unsigned flags) {
  Stream* s = nullptr;
  if (const CUresult r = find_stream(handle, ptds, &s); r != CUDA_SUCCESS) return r;
  std::lock_guard<std::recursive_mutex> lock(graph_lock());
  if (s->capture == nullptr) return CUDA_ERROR_ILLEGAL_STATE;
  if (flags > 1 || (count > 0 && deps == nullptr)) return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < count; i++) {
    const Node* node = to_node(deps[i]);
    if (node == nullptr || node->graph != s->capture->graph) return CUDA_ERROR_INVALID_VALUE;
  }
  if (flags == CU_STREAM_SET_CAPTURE_DEPENDENCIES) s->capture_nodes.clear();
  s->capture_nodes.insert(s->capture_nodes.end(), deps, deps + count);
  return CUDA_SUCCESS;
}

}  // namespace

BOTH(cuStreamBeginCapture, ARGS(CUstream s),
     begin(s, kPtds, CU_STREAM_CAPTURE_MODE_GLOBAL, nullptr, nullptr, 0))
BOTH(cuStreamBeginCapture_v2, ARGS(CUstream s, CUstreamCaptureMode mode),
     begin(s, kPtds, mode, nullptr, nullptr, 0))
BOTH(cuStreamBeginCaptureToGraph,
     ARGS(CUstream s, CUgraph g, const CUgraphNode* deps, const CUgraphEdgeData*, size_t count,
          CUstreamCaptureMode mode),
     to_graph(g) == nullptr ? CUDA_ERROR_INVALID_VALUE
                            : begin(s, kPtds, mode, to_graph(g), deps, count))
BOTH(cuStreamEndCapture, ARGS(CUstream s, CUgraph* out), finish(s, kPtds, out))
BOTH(cuStreamIsCapturing, ARGS(CUstream s, CUstreamCaptureStatus* status),
     status_of(s, kPtds, status, nullptr, nullptr, nullptr, nullptr, nullptr))
BOTH(cuStreamGetCaptureInfo, ARGS(CUstream s, CUstreamCaptureStatus* status, cuuint64_t* id),
     status_of(s, kPtds, status, id, nullptr, nullptr, nullptr, nullptr))
BOTH(cuStreamGetCaptureInfo_v2,
     ARGS(CUstream s, CUstreamCaptureStatus* status, cuuint64_t* id, CUgraph* g,
          const CUgraphNode** deps, size_t* n),
     status_of(s, kPtds, status, id, g, deps, nullptr, n))
BOTH(cuStreamGetCaptureInfo_v3,
     ARGS(CUstream s, CUstreamCaptureStatus* status, cuuint64_t* id, CUgraph* g,
          const CUgraphNode** deps, const CUgraphEdgeData** edges, size_t* n),
     status_of(s, kPtds, status, id, g, deps, edges, n))
BOTH(cuStreamUpdateCaptureDependencies,
     ARGS(CUstream s, CUgraphNode* deps, size_t n, unsigned flags),
     update_deps(s, kPtds, deps, n, flags))
BOTH(cuStreamUpdateCaptureDependencies_v2,
     ARGS(CUstream s, CUgraphNode* deps, const CUgraphEdgeData*, size_t n, unsigned flags),
     update_deps(s, kPtds, deps, n, flags))

SIM_API cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
  SIM_ENTER();
  if (mode == nullptr || *mode < 0 || *mode > 2) return CUDA_ERROR_INVALID_VALUE;
  std::swap(*mode, t_mode);
  return CUDA_SUCCESS;
}
