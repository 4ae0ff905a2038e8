// One more than there is room for, in each table of fixed size outside GPU time (its own are in
// tables_test.cc), and one more than the first room of each list that grows.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <vector>

#include "abi/env.h"
#include "tests/shim/harness.h"

namespace allot::shim_test {
namespace {

constexpr uint64_t kContextBytes = 512 * kMiB;

CUmemGenericAllocationHandle allocation(const Cuda& cuda, bool exported) {
  CUmemAllocationProp prop = {};
  prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  prop.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  if (exported) prop.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  CUmemGenericAllocationHandle handle = 0;
  EXPECT_EQ(cuda.cuMemCreate(&handle, 2 * kMiB, &prop, 0ull), CUDA_SUCCESS);
  return handle;
}

// ---- graphs ------------------------------------------------------------------------------------

CUgraph graph_of(const Cuda& cuda, int nodes, uint64_t bytes) {
  CUgraph graph = nullptr;
  EXPECT_EQ(cuda.cuGraphCreate(&graph, 0), CUDA_SUCCESS);
  for (int i = 0; i < nodes; ++i) {
    CUDA_MEM_ALLOC_NODE_PARAMS params = {};
    params.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    params.poolProps.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
    params.bytesize = bytes;
    CUgraphNode node = nullptr;
    EXPECT_EQ(cuda.cuGraphAddMemAllocNode(&node, graph, nullptr, 0, &params), CUDA_SUCCESS);
  }
  return graph;
}

// What a launch returns.
CUresult launched(const Cuda& cuda, CUgraph graph) {
  CUgraphExec exec = nullptr;
  EXPECT_EQ(cuda.cuGraphInstantiateWithFlags(&exec, graph, 0ull), CUDA_SUCCESS);
  return cuda.cuGraphLaunch(exec, nullptr);
}

SLICE_TEST(RoomMemoryNodesOfChildGraphsCountHoweverDeepTheyAre, "2G") {
  const Cuda cuda;
  start_cuda(cuda);
  for (int depth : {1, 8, 9, 40}) {
    CUgraph graph = graph_of(cuda, 1, 2 * kGiB);
    for (int i = 0; i < depth; ++i) {
      CUgraph outer = nullptr;
      CUgraphNode node = nullptr;
      ASSERT_EQ(cuda.cuGraphCreate(&outer, 0), CUDA_SUCCESS);
      CUgraphNodeParams params = {};
      params.type = CU_GRAPH_NODE_TYPE_GRAPH;
      params.graph.graph = graph;
      params.graph.ownership = CU_GRAPH_CHILD_GRAPH_OWNERSHIP_MOVE;
      const size_t none = 0;
      ASSERT_EQ(call(cuda, "cuGraphAddNode", &node, outer, static_cast<CUgraphNode*>(nullptr),
                      none, &params),
                CUDA_SUCCESS);
      graph = outer;
    }
    EXPECT_EQ(launched(cuda, graph), CUDA_ERROR_OUT_OF_MEMORY) << depth;
    EXPECT_EQ(physical_used(), kContextBytes) << depth;
  }
}

SLICE_TEST(RoomAGraphOfMoreThan64NodesCountsWhole, "2G") {
  const Cuda cuda;
  start_cuda(cuda);
  EXPECT_EQ(launched(cuda, graph_of(cuda, 65, 32 * kMiB)), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(physical_used(), kContextBytes);
  EXPECT_EQ(launched(cuda, graph_of(cuda, 40, 32 * kMiB)), CUDA_SUCCESS);
  EXPECT_EQ(ledger_used(), physical_used());
}

// ---- virtual memory ----------------------------------------------------------------------------

SLICE_TEST(RoomMoreThan128ExportedAllocationsAreKeptApart, "2G") {
  const Cuda cuda;
  start_cuda(cuda);
  std::vector<int> descriptors(300, -1);
  for (int& fd : descriptors) {
    const CUmemGenericAllocationHandle handle = allocation(cuda, true);
    ASSERT_EQ(call(cuda, "cuMemExportToShareableHandle", static_cast<void*>(&fd), handle,
                    static_cast<int>(CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR), 0ull),
              CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuMemRelease(handle), CUDA_SUCCESS);
  }
  EXPECT_EQ(ledger_used(), kContextBytes + 600 * kMiB);
  for (size_t i = 0; i < descriptors.size(); i += 2) close(descriptors[i]);
  CUdeviceptr block = 0;
  EXPECT_EQ(cuda.cuMemAlloc_v2(&block, kGiB + 240 * kMiB), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(ledger_used(), kContextBytes + 300 * kMiB) << "every second one came back";
  EXPECT_EQ(ledger_used(), physical_used());
}

SLICE_TEST(RoomOneUnmapReturnsMoreThan32Mappings, "2G") {
  const Cuda cuda;
  start_cuda(cuda);
  constexpr uint64_t kPieces = 200;
  CUdeviceptr base = 0;
  ASSERT_EQ(cuda.cuMemAddressReserve(&base, kPieces * 2 * kMiB, 0, 0, 0ull), CUDA_SUCCESS);
  for (uint64_t i = 0; i < kPieces; ++i) {
    const CUmemGenericAllocationHandle handle = allocation(cuda, false);
    ASSERT_EQ(cuda.cuMemMap(base + i * 2 * kMiB, 2 * kMiB, 0, handle, 0ull), CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuMemRelease(handle), CUDA_SUCCESS);
  }
  EXPECT_EQ(ledger_charged(ALLOT_KIND_VMM), kPieces * 2 * kMiB);
  ASSERT_EQ(cuda.cuMemUnmap(base, kPieces * 2 * kMiB), CUDA_SUCCESS);
  EXPECT_EQ(ledger_used(), kContextBytes);
}

SLICE_TEST(RoomMoreThan128TilesOfASparseArrayAreKeptApart, "2G") {
  const Cuda cuda;
  start_cuda(cuda);
  CUDA_ARRAY3D_DESCRIPTOR d = {131072, 4096, 0, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_SPARSE};
  CUarray array = nullptr;
  ASSERT_EQ(cuda.cuArray3DCreate_v2(&array, &d), CUDA_SUCCESS);
  CUarrayMapInfo info = {};
  info.resourceType = CU_RESOURCE_TYPE_ARRAY;
  info.resource.array = array;
  info.subresource.sparseLevel.extentWidth = 512;
  for (unsigned i = 0; i < 200; ++i) {
    info.memOperationType = CU_MEM_OPERATION_TYPE_MAP;
    info.memHandle.memHandle = allocation(cuda, false);
    info.subresource.sparseLevel.offsetX = 512 * i;
    ASSERT_EQ(call(cuda, "cuMemMapArrayAsync", &info, 1u, static_cast<CUstream>(nullptr)),
              CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuMemRelease(info.memHandle.memHandle), CUDA_SUCCESS);
  }
  EXPECT_EQ(ledger_charged(ALLOT_KIND_VMM), 400 * kMiB);
  ASSERT_EQ(cuda.cuArrayDestroy(array), CUDA_SUCCESS);
  EXPECT_EQ(ledger_used(), kContextBytes);
}

// ---- handles for other processes ---------------------------------------------------------------

// Offers 1,025 blocks of 2 MiB, writes the handles into the file of its argument and waits.
CASE(RoomOffers) {
  const Cuda cuda;
  start_cuda(cuda);
  std::ofstream file(case_arguments().at(0), std::ios::binary);
  for (int i = 0; i < 1025; ++i) {
    CUdeviceptr block = 0;
    CUipcMemHandle handle;
    ASSERT_EQ(cuda.cuMemAlloc_v2(&block, 2 * kMiB), CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuIpcGetMemHandle(&handle, block), CUDA_SUCCESS);
    file.write(reinterpret_cast<const char*>(&handle), sizeof handle);
  }
  file.close();
  printf("offered\n");
  fflush(stdout);
  char byte;
  while (read(0, &byte, 1) == 1) {
  }
}

// The region's places are found by the handle's hash, so some parts are full before all are.
SLICE_TEST(RoomOf1025HandlesTheLastAreChargedToTheirBorrowerToo, "8G") {
  const std::string path = machine_folder() + "/handles";
  Running lender = start_case("RoomOffers", slice_environment({.memory = "8G"}), {path});
  for (std::string line = "-"; !line.empty() && line != "offered";) line = read_line(lender);
  std::vector<CUipcMemHandle> handles(1025);
  std::ifstream file(path, std::ios::binary);
  ASSERT_TRUE(file.read(reinterpret_cast<char*>(handles.data()),
                        static_cast<std::streamsize>(handles.size() * sizeof handles[0])));
  const Cuda cuda;
  start_cuda(cuda);
  for (const CUipcMemHandle& handle : handles) {
    CUdeviceptr block = 0;
    ASSERT_EQ(cuda.cuIpcOpenMemHandle_v2(&block, handle, 1u), CUDA_SUCCESS);
  }
  const uint64_t twice = ledger_charged(ALLOT_KIND_IMPORT);
  EXPECT_GE(twice, 2 * kMiB) << "there is room for 1,024";
  EXPECT_LE(twice, 400 * kMiB);
  EXPECT_EQ(ledger_used(), physical_used() + twice) << "never less than there is";
  finish(lender);
  CUdeviceptr refused = 0;
  EXPECT_EQ(cuda.cuMemAlloc_v2(&refused, 6 * kGiB), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_IMPORT), 1025 * 2 * kMiB) << "all loans were taken over";
  EXPECT_EQ(ledger_used(), physical_used());
}

// ---- small blocks ------------------------------------------------------------------------------

// A slab past the last place has a count and no bits.
SLICE_TEST(RoomPast64GiBOfSmallBlocksTheAccountStaysExact, "79G") {
  const Cuda cuda;
  start_cuda(cuda);
  std::vector<CUdeviceptr> blocks(2 * (32768 + 3));
  for (CUdeviceptr& block : blocks) ASSERT_EQ(cuda.cuMemAlloc_v2(&block, kMiB), CUDA_SUCCESS);
  const uint64_t all = blocks.size() / 2 * 2 * kMiB;
  EXPECT_EQ(ledger_charged(ALLOT_KIND_LINEAR), all);
  EXPECT_NE(cuda.cuMemFree_v2(blocks.back() + 4096), CUDA_SUCCESS);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_LINEAR), all) << "the driver refused it";
  for (CUdeviceptr block : blocks) ASSERT_EQ(cuda.cuMemFree_v2(block), CUDA_SUCCESS);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_LINEAR), 0u);
  EXPECT_EQ(ledger_used(), physical_used());
}

// ---- environments ------------------------------------------------------------------------------

CASE(RoomTellsItsTotal) {
  const Cuda cuda;
  size_t total = 0;
  if (cuda.cuInit(0) == CUDA_SUCCESS) cuda.cuDeviceTotalMem_v2(&total, 0);
  printf("total %zu GiB\n", total >> 30);
  fflush(stdout);
}

bool tells_5_gib(const Environment& environment) {
  const Outcome outcome = run_case("RoomTellsItsTotal", environment);
  return outcome.output.find("total 5 GiB") != std::string::npos;
}

TEST(Room, TheLimitIsFoundAmongMoreThan64Variables) {
  Environment many = slice_environment({.memory = "5G"});
  for (int i = 0; i < 100; ++i) many["ALLOT_A" + std::to_string(i)] = "1";
  EXPECT_TRUE(tells_5_gib(many));
}

TEST(Room, TheLimitIsFoundBehindMoreThan16KiBOfOthers) {
  Environment longer = slice_environment({.memory = "5G"});
  longer["ALLOT_A"] = std::string(20000, 'x');
  EXPECT_TRUE(tells_5_gib(longer));
}

#if !ALLOT_TEST_SANITIZED  // an environment without preloads has none for the sanitizer's runtime
SLICE_TEST(RoomAChildWithMoreThan2048VariablesKeepsTheLimit, "5G") {
  for (const size_t bytes : {size_t{8}, size_t{200}}) {
    std::vector<std::string> texts;
    for (int i = 0; i < 3000; ++i)
      texts.push_back("V" + std::to_string(i) + "=" + std::string(bytes, 'v'));
    std::vector<char*> variables;
    for (std::string& text : texts) variables.push_back(text.data());
    variables.push_back(nullptr);
    std::vector<std::string> words = case_command("RoomTellsItsTotal");
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    int out[2];
    ASSERT_EQ(pipe(out), 0);
    const pid_t child = fork();
    if (child == 0) {
      dup2(out[1], 1);
      execve(argv[0], argv.data(), variables.data());
      _exit(98);
    }
    close(out[1]);
    std::string said;
    char buffer[4096];
    for (ssize_t n; (n = read(out[0], buffer, sizeof buffer)) > 0;)
      said.append(buffer, static_cast<size_t>(n));
    close(out[0]);
    waitpid(child, nullptr, 0);
    EXPECT_NE(said.find("total 5 GiB"), std::string::npos) << said;
  }
}
#endif

}  // namespace
}  // namespace allot::shim_test
