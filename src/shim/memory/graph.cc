// Memory of graphs: nodes that allocate, made explicitly or by capturing cuMemAllocAsync.
//
// Measured on an H100, driver 580: adding such a node and instantiating take no memory; the launch
// takes it, in steps of 32 MiB; cuDeviceGetGraphMemAttribute says how much is reserved. The memory
// stays after the graph is destroyed, until cuDeviceGraphMemTrim, and launching the graph again
// takes no more. So instantiation walks the nodes once and keeps a bound for each device with the
// executable graph. The first launch after instantiation or after a trim reserves the bound, and
// every launch settles to the driver's figure. A graph without such nodes, the usual case, costs
// one failed look-up.
#include "shim/memory/graph.h"
#include "shim/memory/charge.h"
#include "shim/memory/driver_memory.h"
#include "shim/process/cuda_calls.h"
#include "shim/process/hook_guard.h"
#include "shim/process/hook_lists.h"
#include "shim/process/process.h"
#include "shim/time/submit.h"
#include "sys/file.h"

namespace allot::shim {
namespace {

constexpr uint64_t kStep = 32 * kMiB;
constexpr size_t kFewNodes = 64;

constinit std::atomic<uint32_t> execs_with_memory{0};  // ever seen; 0 = no launch need look

uint64_t device_key(CUgraphExec exec, CUdevice ordinal) {
  return reinterpret_cast<uint64_t>(exec) << 6 | static_cast<uint64_t>(ordinal);
}

bool graph_reserved(CUdevice ordinal, uint64_t* bytes) {
  cuuint64_t value = 0;
  if (real::cuDeviceGetGraphMemAttribute(ordinal, CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, &value) !=
      CUDA_SUCCESS) {
    return false;
  }
  *bytes = value;
  return true;
}

void settle(Device& device, uint64_t prepaid) {
  const CUdevice ordinal = ordinal_of(device);
  const bool told = device.graph.settle(
      static_cast<uint32_t>(device.gpu), ALLOT_KIND_GRAPH, prepaid,
      [ordinal](uint64_t, uint64_t* now) { return graph_reserved(ordinal, now); });
  if (!told) release(device, ALLOT_KIND_GRAPH, prepaid);
}

// Graphs that are still to be looked at. Grows, so that child graphs of any depth and number count.
class Pending {
 public:
  Pending() = default;
  ~Pending() {
    if (list_ != few_) sys::unmap(list_, room_ * sizeof(CUgraph));
  }
  Pending(const Pending&) = delete;
  Pending& operator=(const Pending&) = delete;

  bool push(CUgraph graph) {
    if (count_ == room_) {
      const Result<void*> memory = sys::map_memory(room_ * 4 * sizeof(CUgraph));
      if (!memory) return false;
      CUgraph* wider = static_cast<CUgraph*>(*memory);
      for (size_t i = 0; i < count_; ++i) wider[i] = list_[i];
      if (list_ != few_) sys::unmap(list_, room_ * sizeof(CUgraph));
      list_ = wider;
      room_ *= 4;
    }
    list_[count_++] = graph;
    return true;
  }
  CUgraph pop() { return count_ == 0 ? nullptr : list_[--count_]; }

 private:
  static constexpr size_t kFew = 32;
  CUgraph few_[kFew];
  CUgraph* list_ = few_;
  size_t room_ = kFew;
  size_t count_ = 0;
};

// Adds up, for each device, what the allocation nodes of a graph request. False: no memory to look.
struct Bounds {
  uint64_t bytes[kMaxDevices];
  Pending pending;

  bool add_all(CUgraph graph) {
    for (; graph != nullptr; graph = pending.pop()) {
      if (!add_graph(graph)) return false;
    }
    return true;
  }

  bool add_graph(CUgraph graph) {
    size_t count = 0;
    if (real::cuGraphGetNodes(graph, nullptr, &count) != CUDA_SUCCESS || count == 0) return true;
    CUgraphNode few[kFewNodes];
    CUgraphNode* nodes = few;
    const size_t bytes_wanted = count * sizeof(CUgraphNode);
    if (count > kFewNodes) {
      const Result<void*> memory = sys::map_memory(bytes_wanted);
      if (!memory) return false;
      nodes = static_cast<CUgraphNode*>(*memory);
    }
    bool all = true;
    if (real::cuGraphGetNodes(graph, nodes, &count) == CUDA_SUCCESS) {
      for (size_t i = 0; all && i < count; ++i) all = add_node(nodes[i]);
    }
    if (nodes != few) sys::unmap(nodes, bytes_wanted);
    return all;
  }

  bool add_node(CUgraphNode node) {
    CUgraphNodeType type;
    if (real::cuGraphNodeGetType(node, &type) != CUDA_SUCCESS) return true;
    if (type == CU_GRAPH_NODE_TYPE_GRAPH) {
      CUgraph child = nullptr;
      const CUresult result = real::cuGraphChildGraphNodeGetGraph(node, &child);
      return result != CUDA_SUCCESS || child == nullptr || pending.push(child);
    }
    CUDA_MEM_ALLOC_NODE_PARAMS params = {};
    if (type != CU_GRAPH_NODE_TYPE_MEM_ALLOC ||
        real::cuGraphMemAllocNodeGetParams(node, &params) != CUDA_SUCCESS) {
      return true;
    }
    const CUmemLocation& location = params.poolProps.location;
    if (location.type == CU_MEM_LOCATION_TYPE_DEVICE && device_of(location.id) != nullptr) {
      bytes[location.id] += round_up(params.bytesize, kPage);
    }
    return true;
  }
};

// False: what it takes cannot be told or noted.
bool note_exec(CUgraphExec exec, CUgraph graph) {
  Bounds bounds = {};
  if (!bounds.add_all(graph)) return false;
  uint64_t mask = 0;
  for (uint32_t i = 0; i < process.device_count; ++i) {
    if (bounds.bytes[i] == 0) continue;
    mask |= uint64_t{1} << i;
    // One less than now: the first launch has not taken the memory yet.
    const uint32_t before = process.devices[i].graph_trims.load(std::memory_order_acquire) - 1;
    if (!process.table.put({device_key(exec, static_cast<CUdevice>(i)), 0,
                            round_up(bounds.bytes[i], kStep), before, 0, Tag::kExecDevice, 0})) {
      return false;
    }
  }
  if (mask == 0) return true;
  if (!process.table.put({reinterpret_cast<uint64_t>(exec), mask, 0, 0, 0, Tag::kExec, 0})) {
    return false;
  }
  execs_with_memory.fetch_add(1, std::memory_order_release);
  return true;
}

// Calls act(device, exec's entry for it) for each device of the mask; stops at false.
template <class Act>
bool each_device(CUgraphExec exec, uint64_t mask, Act act) {
  for (uint32_t i = 0; i < process.device_count; ++i) {
    Entry entry;
    if ((mask >> i & 1) == 0) continue;
    if (!process.table.find(Tag::kExecDevice, device_key(exec, static_cast<CUdevice>(i)), &entry))
      continue;
    if (!act(process.devices[i], entry)) return false;
  }
  return true;
}

// Launches like any other submission (submit.h).
template <auto& Hook>
CUresult launch(CUgraphExec exec, CUstream stream) {
  return Hook(reinterpret_cast<uint64_t>(exec), reinterpret_cast<uint64_t>(stream));
}

bool has_memory_nodes(CUgraphExec exec, Entry* known) {
  if (execs_with_memory.load(std::memory_order_acquire) == 0) return false;
  const auto guard = Observing::on_the_slow_way();
  return guard.tracking() &&
         process.table.find(Tag::kExec, reinterpret_cast<uint64_t>(exec), known);
}

// A graph without memory nodes is submitted without our guard: inside it the gate takes the launch
// for one of the driver's own and lets it pass, as it does with graphs that have such nodes
// (docs/limits.md).
template <auto& Submit>
CUresult submit(CUgraphExec exec, CUstream stream) {
  Entry known;
  if (!has_memory_nodes(exec, &known)) return Submit(exec, stream);
  const auto guard = Moving::on_the_slow_way();
  uint64_t prepaid[kMaxDevices] = {};
  uint32_t trims[kMaxDevices] = {};
  const InFlight in_flight(guard);
  const bool granted = each_device(exec, known.owner, [&](Device& device, const Entry& entry) {
    const CUdevice i = ordinal_of(device);
    trims[i] = device.graph_trims.load(std::memory_order_acquire);
    if (entry.count == trims[i]) return true;  // launched before; its memory is still there
    if (!reserve(device, ALLOT_KIND_GRAPH, entry.bytes)) return false;
    prepaid[i] = entry.bytes;
    return true;
  });
  const CUresult result = granted ? Submit(exec, stream) : CUDA_ERROR_OUT_OF_MEMORY;
  each_device(exec, known.owner, [&](Device& device, const Entry& entry) {
    const CUdevice i = ordinal_of(device);
    settle(device, prepaid[i]);
    if (result == CUDA_SUCCESS && entry.count != trims[i]) {
      process.table.update(Tag::kExecDevice, entry.key, [&](Entry& e) {
        e.count = trims[i];
        return true;
      });
    }
    return true;
  });
  return result;
}

template <auto& Instantiate, class... A>
CUresult instantiate(const TakingMovable& guard, CUgraphExec* out, CUgraph graph, A... rest) {
  const CUresult result = Instantiate(out, graph, rest...);
  if (result == CUDA_SUCCESS && guard.tracking()) {
    if (!note_exec(*out, graph)) {
      real::cuGraphExecDestroy(*out);
      *out = nullptr;
      return CUDA_ERROR_OUT_OF_MEMORY;
    }
    keep_all_accounts();
  }
  return result;
}

CUresult exec_destroy(const Observing& guard, CUgraphExec exec) {
  Entry known;
  if (guard.tracking() &&
      process.table.take(Tag::kExec, reinterpret_cast<uint64_t>(exec), &known)) {
    for (uint32_t i = 0; i < process.device_count; ++i) {
      Entry gone;
      if (known.owner >> i & 1) {
        process.table.take(Tag::kExecDevice, device_key(exec, static_cast<CUdevice>(i)), &gone);
      }
    }
  }
  return real::cuGraphExecDestroy(exec);
}

CUresult graph_mem_trim(const Observing& guard, CUdevice ordinal) {
  const CUresult result = real::cuDeviceGraphMemTrim(ordinal);
  Device* device = guard.tracking() ? device_of(ordinal) : nullptr;
  if (device != nullptr) {
    device->graph_trims.fetch_add(1, std::memory_order_acq_rel);
    settle(*device, 0);
  }
  return result;
}

}  // namespace

void settle_graphs() {
  for (uint32_t i = 0; i < process.device_count; ++i) {
    Device& device = process.devices[i];
    if (device.gpu >= 0 && device.graph.bytes() > 0) settle(device, 0);
  }
}

void trim_graphs(const Device& device) {
  if (device.graph.bytes() == 0) return;
  Device& mine = process.devices[ordinal_of(device)];
  real::cuDeviceGraphMemTrim(ordinal_of(device));
  mine.graph_trims.fetch_add(1, std::memory_order_acq_rel);
  settle(mine, 0);
}

void graph_memory_may_have_gone() {
  if (execs_with_memory.load(std::memory_order_relaxed) != 0) settle_graphs();
}

std::span<const Hook> graph_hooks() {
  static constexpr Hook hooks[] = {
      hook<instantiate<real::cuGraphInstantiate, CUgraphNode*, char*, size_t>>(
          "cuGraphInstantiate"),
      hook<instantiate<real::cuGraphInstantiate_v2, CUgraphNode*, char*, size_t>>(
          "cuGraphInstantiate_v2"),
      hook<instantiate<real::cuGraphInstantiateWithFlags, unsigned long long>>(
          "cuGraphInstantiateWithFlags"),
      hook<instantiate<real::cuGraphInstantiateWithParams, CUDA_GRAPH_INSTANTIATE_PARAMS*>>(
          "cuGraphInstantiateWithParams"),
      hook<instantiate<real::cuGraphInstantiateWithParams_ptsz, CUDA_GRAPH_INSTANTIATE_PARAMS*>>(
          "cuGraphInstantiateWithParams_ptsz"),
      hook<exec_destroy>("cuGraphExecDestroy"),
      // Those without memory nodes are for the gate, which takes guarded calls for the driver's.
      unguarded<submit<launch<submit_graph>>>("cuGraphLaunch"),
      unguarded<submit<launch<submit_graph_ptsz>>>("cuGraphLaunch_ptsz"),
      unguarded<submit<real::cuGraphUpload>>("cuGraphUpload"),
      unguarded<submit<real::cuGraphUpload_ptsz>>("cuGraphUpload_ptsz"),
      hook<graph_mem_trim>("cuDeviceGraphMemTrim"),
  };
  return hooks;
}

}  // namespace allot::shim
