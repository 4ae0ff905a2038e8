// Graphs: built by hand, captured, replayed, updated, with memory of their own.
#include <string.h>

#include <vector>

#include "test_support.h"

using namespace allot::sim_test;
class SimGraphs : public Sim {};

namespace {

constexpr uint64_t kMiB = 1 << 20;

CUdeviceptr take(size_t bytes) {
  CUdeviceptr at = 0;
  EXPECT_CU(CU(cuMemAlloc_v2)(&at, bytes));
  return at;
}

CUstream make() {
  CUstream s = nullptr;
  EXPECT_CU(CU(cuStreamCreate)(&s, unsigned{CU_STREAM_NON_BLOCKING}));
  return s;
}

CUgraphExec instantiate(CUgraph g) {
  CUgraphExec exec = nullptr;
  EXPECT_CU(CU(cuGraphInstantiateWithFlags)(&exec, g, 0ull));
  return exec;
}

size_t count_of(CUgraph g) {
  size_t n = 0;
  EXPECT_CU(CU(cuGraphGetNodes)(g, static_cast<CUgraphNode*>(nullptr), &n));
  return n;
}

CUgraphNode fill_node(CUgraph g, std::vector<CUgraphNode> deps, CUdeviceptr at, uint64_t words,
                      uint32_t value) {
  void* arguments[] = {&at, &words, &value};
  CUDA_KERNEL_NODE_PARAMS_v2 p{};
  p.func = function("allot_fill");
  p.gridDimX = p.gridDimY = p.gridDimZ = p.blockDimX = p.blockDimY = p.blockDimZ = 1;
  p.kernelParams = arguments;
  CUgraphNode node = nullptr;
  EXPECT_CU(CU(cuGraphAddKernelNode_v2)(&node, g, static_cast<const CUgraphNode*>(deps.data()),
                                        deps.size(),
                                        static_cast<const CUDA_KERNEL_NODE_PARAMS_v2*>(&p)));
  return node;
}

uint64_t graph_memory(int which) {
  cuuint64_t v = 0;
  EXPECT_CU(CU(cuDeviceGetGraphMemAttribute)(0, which, static_cast<void*>(&v)));
  return v;
}

int g_called = 0;
void called(void*) {
  g_called++;
}

}  // namespace

TEST_F(SimGraphs, BuiltByHandRunInOrder) {
  in_child([] {
    start();
    const CUdeviceptr a = take(4096), b = take(4096);
    CUgraph g = nullptr;
    EXPECT_CU(CU(cuGraphCreate)(&g, 0u));
    CUgraphNode copy = nullptr, host = nullptr;
    CUgraphNode second =
        fill_node(g, {}, a, 1024, 2);  // made first, runs second: see the edge below
    CUgraphNode first = fill_node(g, {}, a, 1024, 1);
    EXPECT_CU(CU(cuGraphAddDependencies)(g, static_cast<const CUgraphNode*>(&first),
                                         static_cast<const CUgraphNode*>(&second), size_t{1}));
    CUDA_MEMCPY3D m{};
    m.srcMemoryType = m.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    m.srcDevice = a;
    m.dstDevice = b;
    m.WidthInBytes = 4096;
    m.Height = m.Depth = 1;
    EXPECT_CU(CU(cuGraphAddMemcpyNode)(&copy, g, static_cast<const CUgraphNode*>(&second),
                                       size_t{1}, static_cast<const CUDA_MEMCPY3D*>(&m),
                                       CUcontext{nullptr}));
    const CUDA_HOST_NODE_PARAMS_v1 h{called, nullptr};
    EXPECT_CU(
        CU(cuGraphAddHostNode)(&host, g, static_cast<const CUgraphNode*>(&copy), size_t{1}, &h));
    EXPECT_EQ(count_of(g), 4u);
    CUgraphExec exec = instantiate(g);
    EXPECT_CU(CU(cuGraphDestroy)(g));
    CUstream s = make();
    for (int i = 0; i < 3; i++) EXPECT_CU(CU(cuGraphLaunch)(exec, s));
    EXPECT_CU(CU(cuStreamSynchronize)(s));
    EXPECT_EQ(mismatches(b, 1024, 2), 0u);
    EXPECT_EQ(g_called, 3);
    EXPECT_CU(CU(cuGraphExecDestroy)(exec));
    EXPECT_EQ(CU(cuGraphLaunch)(exec, s), CUDA_ERROR_INVALID_VALUE);
  });
}

TEST_F(SimGraphs, CapturedAcrossStreamsReplay) {
  in_child([] {
    start();
    CUstream s = make(), side = make();
    const CUdeviceptr a = take(4096), b = take(4096);
    CUevent fork = nullptr, join = nullptr;
    EXPECT_CU(CU(cuEventCreate)(&fork, unsigned{CU_EVENT_DISABLE_TIMING}));
    EXPECT_CU(CU(cuEventCreate)(&join, unsigned{CU_EVENT_DISABLE_TIMING}));
    EXPECT_CU(fill(s, a, 1, 0));  // loads the module outside the capture
    EXPECT_CU(CU(cuStreamSynchronize)(s));
    EXPECT_CU(CU(cuStreamBeginCapture_v2)(s, CU_STREAM_CAPTURE_MODE_RELAXED));
    EXPECT_CU(CU(cuMemsetD32Async)(a, 9u, size_t{1024}, s));
    EXPECT_CU(CU(cuEventRecord)(fork, s));
    EXPECT_CU(CU(cuStreamWaitEvent)(side, fork, 0u));
    EXPECT_CU(CU(cuMemcpyAsync)(b, a, size_t{4096}, side));
    EXPECT_CU(CU(cuEventRecord)(join, side));
    CUstreamCaptureStatus status{};
    EXPECT_CU(CU(cuStreamIsCapturing)(side, &status));
    EXPECT_EQ(status, CU_STREAM_CAPTURE_STATUS_ACTIVE);
    EXPECT_CU(CU(cuStreamWaitEvent)(s, join, 0u));
    EXPECT_CU(fill(s, a, 512, 3));
    CUgraph g = nullptr;
    EXPECT_CU(CU(cuStreamEndCapture)(s, &g));
    EXPECT_EQ(count_of(g), 3u);
    size_t edges = 0;
    EXPECT_CU(CU(cuGraphGetEdges)(g, static_cast<CUgraphNode*>(nullptr),
                                  static_cast<CUgraphNode*>(nullptr), &edges));
    EXPECT_EQ(edges, 3u);
    EXPECT_EQ(mismatches(a, 1, 0), 0u);  // nothing ran
    CUgraphExec exec = instantiate(g);
    EXPECT_CU(CU(cuGraphLaunch)(exec, s));
    EXPECT_CU(CU(cuStreamSynchronize)(s));
    EXPECT_EQ(mismatches(b, 1024, 9), 0u);
    EXPECT_EQ(mismatches(a, 512, 3), 0u);
    EXPECT_EQ(mismatches(a, 1024, 3), 512u);
  });
}

TEST_F(SimGraphs, CaptureRefusesWhatItMust) {
  in_child([] {
    start();
    CUstream s = make(), side = make();
    CUgraph g = nullptr;
    EXPECT_EQ(CU(cuStreamEndCapture)(s, &g), CUDA_ERROR_ILLEGAL_STATE);
    EXPECT_EQ(CU(cuStreamBeginCapture_v2)(CUstream{nullptr}, CU_STREAM_CAPTURE_MODE_GLOBAL),
              CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    EXPECT_CU(CU(cuStreamBeginCapture_v2)(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
    EXPECT_EQ(CU(cuStreamSynchronize)(s), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    EXPECT_EQ(CU(cuStreamEndCapture)(s, &g), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    EXPECT_EQ(g, nullptr);
    EXPECT_CU(CU(cuStreamBeginCapture_v2)(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
    CUdeviceptr at = 0;
    EXPECT_EQ(CU(cuMemAlloc_v2)(&at, size_t{4}), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    EXPECT_EQ(CU(cuStreamEndCapture)(s, &g), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    // A side stream that never comes back.
    CUevent fork = nullptr;
    EXPECT_CU(CU(cuEventCreate)(&fork, 0u));
    EXPECT_CU(CU(cuStreamBeginCapture_v2)(s, CU_STREAM_CAPTURE_MODE_RELAXED));
    EXPECT_CU(CU(cuEventRecord)(fork, s));
    EXPECT_CU(CU(cuStreamWaitEvent)(side, fork, 0u));
    EXPECT_CU(spin(side, 1));
    EXPECT_EQ(CU(cuStreamEndCapture)(s, &g), CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
    EXPECT_CU(spin(side, 1));  // and is a plain stream again
    EXPECT_CU(CU(cuStreamSynchronize)(side));
  });
}

TEST_F(SimGraphs, UpdatesKeepTheShape) {
  in_child([] {
    start();
    const CUdeviceptr a = take(4096), b = take(4096);
    CUgraph g = nullptr, other = nullptr, longer = nullptr;
    for (CUgraph* each : {&g, &other, &longer}) EXPECT_CU(CU(cuGraphCreate)(each, 0u));
    CUgraphNode node = fill_node(g, {}, a, 1024, 1);
    fill_node(other, {}, b, 1024, 2);
    fill_node(longer, {fill_node(longer, {}, a, 1, 1)}, a, 1, 1);
    CUgraphExec exec = instantiate(g);
    CUgraphExecUpdateResultInfo info{};
    EXPECT_EQ(CU(cuGraphExecUpdate_v2)(exec, longer, &info), CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
    EXPECT_EQ(info.result, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED);
    EXPECT_CU(CU(cuGraphExecUpdate_v2)(exec, other, &info));
    EXPECT_CU(CU(cuGraphLaunch)(exec, CUstream{nullptr}));
    EXPECT_CU(CU(cuCtxSynchronize)());
    EXPECT_EQ(mismatches(b, 1024, 2), 0u);
    EXPECT_EQ(mismatches(a, 1024, 1), 1024u);
    CUDA_KERNEL_NODE_PARAMS_v2 p{};
    EXPECT_CU(CU(cuGraphKernelNodeGetParams_v2)(node, &p));
    EXPECT_EQ(*static_cast<uint32_t*>(p.kernelParams[2]), 1u);
    EXPECT_CU(CU(cuGraphExecKernelNodeSetParams_v2)(
        exec, node, static_cast<const CUDA_KERNEL_NODE_PARAMS_v2*>(&p)));
    EXPECT_CU(CU(cuGraphLaunch)(exec, CUstream{nullptr}));
    EXPECT_CU(CU(cuCtxSynchronize)());
    EXPECT_EQ(mismatches(a, 1024, 1), 0u);
    EXPECT_CU(CU(cuMemsetD32_v2)(a, 0u, size_t{1024}));
    EXPECT_CU(CU(cuGraphNodeSetEnabled)(exec, node, 0u));
    EXPECT_CU(CU(cuGraphLaunch)(exec, CUstream{nullptr}));
    EXPECT_CU(CU(cuCtxSynchronize)());
    EXPECT_EQ(mismatches(a, 1024, 0), 0u);
    CUgraph clone = nullptr;
    CUgraphNode twin = nullptr;
    CUgraphNodeType type{};
    EXPECT_CU(CU(cuGraphClone)(&clone, g));
    EXPECT_CU(CU(cuGraphNodeFindInClone)(&twin, node, clone));
    EXPECT_CU(CU(cuGraphNodeGetType)(twin, &type));
    EXPECT_EQ(type, CU_GRAPH_NODE_TYPE_KERNEL);
    CUgraphNode child = nullptr;
    EXPECT_CU(CU(cuGraphAddChildGraphNode)(&child, longer, static_cast<const CUgraphNode*>(nullptr),
                                           size_t{0}, g));
    CUgraphExec nested = instantiate(longer);
    EXPECT_CU(CU(cuGraphLaunch)(nested, CUstream{nullptr}));
    EXPECT_CU(CU(cuCtxSynchronize)());
    EXPECT_EQ(mismatches(a, 1024, 1), 0u);
  });
}

TEST_F(SimGraphs, MemoryNodesTakeMemoryAtTheLaunch) {
  in_child([] {
    start();
    CUstream s = make();
    const uint64_t before = free_memory();
    CUgraph g = nullptr;
    EXPECT_CU(CU(cuGraphCreate)(&g, 0u));
    CUDA_MEM_ALLOC_NODE_PARAMS_v1 p{};
    p.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    p.poolProps.location = CUmemLocation{CU_MEM_LOCATION_TYPE_DEVICE, 0};
    p.bytesize = 50 * kMiB;
    CUgraphNode allocate = nullptr, release = nullptr;
    EXPECT_CU(CU(cuGraphAddMemAllocNode)(&allocate, g, static_cast<const CUgraphNode*>(nullptr),
                                         size_t{0}, &p));
    ASSERT_NE(p.dptr, 0u);
    CUgraphNode use = fill_node(g, {allocate}, p.dptr, 1024, 4);
    EXPECT_CU(CU(cuGraphAddMemFreeNode)(&release, g, static_cast<const CUgraphNode*>(&use),
                                        size_t{1}, p.dptr));
    CUgraphExec exec = instantiate(g);
    EXPECT_EQ(before, free_memory());
    EXPECT_EQ(graph_memory(CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT), 0u);
    for (int i = 0; i < 2; i++) {
      EXPECT_CU(CU(cuGraphLaunch)(exec, s));
      EXPECT_CU(CU(cuStreamSynchronize)(s));
      EXPECT_EQ(before - free_memory(), 64 * kMiB);
      for (int k = 0; k < 4; k++) EXPECT_EQ(graph_memory(k), 64 * kMiB);
    }
    EXPECT_CU(CU(cuGraphExecDestroy)(exec));
    EXPECT_CU(CU(cuGraphDestroy)(g));
    EXPECT_EQ(before - free_memory(), 64 * kMiB);
    EXPECT_CU(CU(cuDeviceGraphMemTrim)(0));
    EXPECT_EQ(before, free_memory());
    EXPECT_EQ(graph_memory(CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT), 0u);
    EXPECT_EQ(graph_memory(CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH), 64 * kMiB);
  });
}

TEST_F(SimGraphs, CapturedAllocationsWork) {
  in_child([] {
    start();
    CUstream s = make();
    EXPECT_CU(spin(s, 1));
    EXPECT_CU(CU(cuStreamSynchronize)(s));
    const CUdeviceptr out = take(4096);
    const uint64_t before = free_memory();
    EXPECT_CU(CU(cuStreamBeginCapture_v2)(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
    CUdeviceptr at = 0;
    EXPECT_CU(CU(cuMemAllocAsync)(&at, size_t{kMiB}, s));
    EXPECT_CU(CU(cuMemsetD32Async)(at, 6u, size_t{1024}, s));
    EXPECT_CU(CU(cuMemcpyAsync)(out, at, size_t{4096}, s));
    EXPECT_CU(CU(cuMemFreeAsync)(at, s));
    CUgraph g = nullptr;
    EXPECT_CU(CU(cuStreamEndCapture)(s, &g));
    EXPECT_EQ(count_of(g), 4u);
    CUgraphExec exec = instantiate(g);
    for (int i = 0; i < 3; i++) EXPECT_CU(CU(cuGraphLaunch)(exec, s));
    EXPECT_CU(CU(cuStreamSynchronize)(s));
    EXPECT_EQ(mismatches(out, 1024, 6), 0u);
    EXPECT_CU(CU(cuGraphExecDestroy)(exec));
    EXPECT_CU(CU(cuGraphDestroy)(g));
    EXPECT_CU(CU(cuDeviceGraphMemTrim)(0));
    EXPECT_EQ(before, free_memory());
  });
}
