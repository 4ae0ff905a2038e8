// Several processes and several GPUs in one slice: races, deaths, visible devices, shared memory,
// limits.
#include <dlfcn.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>

#include "driver/nvml_abi.h"
#include "tests/shim/harness.h"

namespace allot::shim_test {
namespace {

// Allocates the MiB given, says so, and keeps them until a line comes (or forever, when killed).
CASE(Holds) {
  const Cuda cuda;
  start_cuda(cuda);
  CUdeviceptr block = 0;
  const CUresult result =
      cuda.cuMemAlloc_v2(&block, std::strtoull(case_arguments().at(0).c_str(), nullptr, 10) * kMiB);
  dprintf(1, "result %d\n", static_cast<int>(result));
  char c;
  while (read(0, &c, 1) == 1 && c != '\n') {
  }
}

std::string skip_to_result(Running& running) {
  std::string line;
  do {
    line = read_line(running);
  } while (!line.empty() && line.rfind("result", 0) != 0);
  return line;
}

size_t free_of(const Cuda& cuda) {
  size_t free_bytes = 0;
  size_t total = 0;
  EXPECT_EQ(cuda.cuMemGetInfo_v2(&free_bytes, &total), CUDA_SUCCESS);
  return free_bytes;
}

Environment same_timeslice(const std::string& memory) {
  return slice_environment({.memory = memory});
}

// Acceptance test 1: two processes are killed, a new one starts, and the survivor's sum is right.
SLICE_TEST(ChargesOfKilledProcessesReturn, "8G") {
  const Cuda cuda;
  start_cuda(cuda);
  CUdeviceptr block = 0;
  ASSERT_EQ(cuda.cuMemAlloc_v2(&block, 100 * kMiB), CUDA_SUCCESS);
  const uint64_t alone = ledger_used();
  const size_t free_alone = free_of(cuda);
  Running first = start_case("Holds", same_timeslice("8G"), {"1000"});
  Running second = start_case("Holds", same_timeslice("8G"), {"1000"});
  EXPECT_EQ(skip_to_result(first), "result 0");
  EXPECT_EQ(skip_to_result(second), "result 0");
  EXPECT_GE(ledger_used(), alone + 2000 * kMiB);
  kill(first.pid, SIGKILL);
  kill(second.pid, SIGKILL);
  finish(first);
  finish(second);
  Running third = start_case("Holds", same_timeslice("8G"), {"500"});
  EXPECT_EQ(skip_to_result(third), "result 0");
  EXPECT_GE(ledger_used(), alone + 500 * kMiB);
  EXPECT_LT(ledger_used(), alone + 2000 * kMiB);
  ASSERT_EQ(cuda.cuMemAlloc_v2(&block, 5000 * kMiB), CUDA_SUCCESS);
  EXPECT_GE(ledger_used(), alone + 5500 * kMiB) << "the survivor's own allocation counts";
  EXPECT_EQ(cuda.cuMemAlloc_v2(&block, 3000 * kMiB), CUDA_ERROR_OUT_OF_MEMORY);
  write_line(third, "go");
  EXPECT_TRUE(finish(third).ok());
  EXPECT_EQ(free_of(cuda), free_alone - 5000 * kMiB);
}

// Acceptance test 2: a clean exit gives its charge back at once.
SLICE_TEST(ChargesOfAnEndedProcessReturnAtOnce, "4G") {
  const Cuda cuda;
  start_cuda(cuda);
  const size_t free_alone = free_of(cuda);
  for (int round = 0; round < 5; ++round) {
    Running child = start_case("Holds", same_timeslice("4G"), {"2000"});
    EXPECT_EQ(skip_to_result(child), "result 0");
    EXPECT_LE(free_of(cuda), free_alone - 2000 * kMiB);
    write_line(child, "go");
    EXPECT_TRUE(finish(child).ok());
    EXPECT_EQ(free_of(cuda), free_alone);
  }
}

// The same without anybody asking: an allocation that needs the dead process's memory gets it.
SLICE_TEST(ARequestThatNeedsADeadProcessesMemoryGetsIt, "4G") {
  const Cuda cuda;
  start_cuda(cuda);
  Running child = start_case("Holds", same_timeslice("4G"), {"2500"});
  EXPECT_EQ(skip_to_result(child), "result 0");
  CUdeviceptr block = 0;
  EXPECT_EQ(cuda.cuMemAlloc_v2(&block, 2500 * kMiB), CUDA_ERROR_OUT_OF_MEMORY);
  kill(child.pid, SIGKILL);
  siginfo_t info = {};
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(child.pid), &info, WEXITED | WNOWAIT),
            0);  // still a zombie
  EXPECT_EQ(cuda.cuMemAlloc_v2(&block, 2500 * kMiB), CUDA_SUCCESS);
  finish(child);
}

// One of the racers: takes and gives back at the cap, checking that the card never holds more than
// the cap.
CASE(Races) {
  const Cuda cuda;
  const int rounds = std::atoi(case_arguments().at(0).c_str());
  const uint64_t cap = std::strtoull(case_arguments().at(1).c_str(), nullptr, 10) * kMiB;
  start_cuda(cuda);
  dprintf(1, "result 0\n");
  char c;
  while (read(0, &c, 1) == 1 && c != '\n') {
  }
  uint64_t granted = 0;
  std::deque<CUdeviceptr> held;  // up to four blocks: all together want far more than there is
  for (int i = 0; i < rounds; ++i) {
    CUdeviceptr block = 0;
    const CUresult result = cuda.cuMemAlloc_v2(&block, 16 * kMiB);
    if (result == CUDA_SUCCESS) {
      ++granted;
      held.push_back(block);
    } else {
      ASSERT_EQ(result, CUDA_ERROR_OUT_OF_MEMORY);
    }
    if (i % 16 == 0) {
      ASSERT_LE(physical_used(), cap);
    }
    sched_yield();  // while holding: the others come in between
    if (held.size() > 3 || (result != CUDA_SUCCESS && !held.empty())) {
      ASSERT_EQ(cuda.cuMemFree_v2(held.front()), CUDA_SUCCESS);
      held.pop_front();
    }
  }
  for (const CUdeviceptr block : held) ASSERT_EQ(cuda.cuMemFree_v2(block), CUDA_SUCCESS);
  dprintf(1, "granted %llu\n", static_cast<unsigned long long>(granted));
}

constexpr uint64_t kContextMiB = 518;  // what a process's first context takes on the software GPU

// Acceptance test 4. ALLOT_RACE_ROUNDS and ALLOT_RACE_PROCESSES make it as long as wanted (10,000 x
// 64).
TEST(Shim, RacingProcessesNeverExceedTheCap) {
  const char* rounds = std::getenv("ALLOT_RACE_ROUNDS");
  const char* processes = std::getenv("ALLOT_RACE_PROCESSES");
  const int count = processes ? std::atoi(processes) : 16;
  // Contexts of all, and room for a quarter of them to hold one block at once.
  const uint64_t cap_mib =
      static_cast<uint64_t>(count) * kContextMiB + static_cast<uint64_t>(count) * 4;
  const Environment environment = same_timeslice(std::to_string(cap_mib) + "M");
  std::vector<Running> racers;
  for (int i = 0; i < count; ++i) {
    racers.push_back(
        start_case("Races", environment, {rounds ? rounds : "200", std::to_string(cap_mib)}));
  }
  for (Running& racer : racers) EXPECT_EQ(skip_to_result(racer), "result 0");
  for (Running& racer : racers) write_line(racer, "go");
  uint64_t granted = 0;
  for (Running& racer : racers) {
    const Outcome outcome = finish(racer);
    EXPECT_TRUE(outcome.ok()) << outcome.output;
    const size_t at = outcome.output.find("granted ");
    ASSERT_NE(at, std::string::npos) << outcome.output;
    const uint64_t mine = std::strtoull(outcome.output.c_str() + at + 8, nullptr, 10);
    granted += mine;
  }
  const uint64_t asked =
      static_cast<uint64_t>(count) * std::strtoull(rounds ? rounds : "200", nullptr, 10);
  EXPECT_LT(granted, asked) << "nobody was ever refused: there was no race";
}

// Acceptance test 13. Three GPUs of different sizes show which one is meant; limits go by visible
// index.
CASE(PrintsTotals) {
  const Cuda cuda;
  int count = 0;
  ASSERT_EQ(cuda.cuInit(0), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuDeviceGetCount(&count), CUDA_SUCCESS);
  std::string text = "result";
  for (int i = 0; i < count; ++i) {
    size_t total = 0;
    size_t physical = 0;
    ASSERT_EQ(cuda.cuDeviceTotalMem_v2(&total, i), CUDA_SUCCESS);
    ASSERT_EQ(bare().cuDeviceTotalMem_v2(&physical, i), CUDA_SUCCESS);
    text += " " + std::to_string(total / kGiB) + "/" + std::to_string((physical + kGiB - 1) / kGiB);
  }
  dprintf(1, "%s\n", text.c_str());
  start_cuda(cuda, 0);
  CUdeviceptr block = 0;
  EXPECT_EQ(cuda.cuMemAlloc_v2(&block, 600 * kMiB), CUDA_SUCCESS);
  CUuuid uuid = {};
  ASSERT_EQ(cuda.cuDeviceGetUuid_v2(&uuid, 0), CUDA_SUCCESS);
  std::string hex = "uuid ";
  for (const char byte : uuid.bytes) {
    char digits[3];
    snprintf(digits, sizeof(digits), "%02x", static_cast<unsigned char>(byte));
    hex += digits;
  }
  dprintf(1, "%s\n", hex.c_str());
}

std::string line_with(const Outcome& outcome, const std::string& beginning) {
  const size_t at = outcome.output.find(beginning);
  return at == std::string::npos ? outcome.output
                                 : outcome.output.substr(at, outcome.output.find('\n', at) - at);
}

Outcome totals(const std::string& visible, const std::string& name, const char* mig = "0") {
  Environment environment = slice_environment({.memory = "",
                                               .gpus = "40G,24G,16G",
                                               .more = {{"ALLOT_GPU_MEM_0", "10G"},
                                                        {"ALLOT_GPU_MEM_1", "5G"},
                                                        {"ALLOT_NAME", name},
                                                        {"ALLOT_SIM_MIG", mig}}});
  if (!visible.empty()) environment["CUDA_VISIBLE_DEVICES"] = visible;
  return run_case("PrintsTotals", environment);
}

TEST(Shim, LimitsFollowCudaVisibleDevices) {
  const Outcome all = totals("", "all");
  EXPECT_EQ(line_with(all, "result"), "result 10/40 5/24 16/16") << all.output;
  EXPECT_EQ(line_with(totals("1", "one"), "result"), "result 10/24");
  EXPECT_EQ(line_with(totals("1,0", "swapped"), "result"), "result 10/24 5/40");
  const Outcome second = totals("2", "last");
  EXPECT_EQ(line_with(second, "result"), "result 10/16");
  const std::string hex = line_with(second, "uuid ").substr(5);
  ASSERT_EQ(hex.size(), 32u) << second.output;
  const std::string uuid = hex.substr(0, 8) + "-" + hex.substr(8, 4) + "-" + hex.substr(12, 4) +
                           "-" + hex.substr(16, 4) + "-" + hex.substr(20);
  const Outcome by_uuid = totals("GPU-" + uuid + ",0", "uuid");
  EXPECT_EQ(line_with(by_uuid, "result"), "result 10/16 5/40") << by_uuid.output;
  EXPECT_EQ(line_with(by_uuid, "uuid "), "uuid " + hex);
  // Instances of a card: their UUIDs begin with MIG.
  const Outcome instance = totals("MIG-" + uuid, "instance", "1");
  EXPECT_EQ(line_with(instance, "result"), "result 10/16") << instance.output;
  EXPECT_EQ(line_with(instance, "uuid "), "uuid " + hex);
}

// The account of a card is one, whatever index processes know it by.
TEST(Shim, ProcessesThatNumberTheCardsDifferentlyShareOneAccount) {
  const auto environment = [](const char* visible) {
    return slice_environment(
        {.memory = "2G", .gpus = "40G,24G", .more = {{"CUDA_VISIBLE_DEVICES", visible}}});
  };
  Running first = start_case("Holds", environment("1"), {"600"});
  EXPECT_EQ(skip_to_result(first), "result 0");
  Running second = start_case("Holds", environment("1,0"), {"600"});
  EXPECT_EQ(skip_to_result(second), "result 2") << "the same card";
  Running other = start_case("Holds", environment("0,1"), {"600"});
  EXPECT_EQ(skip_to_result(other), "result 0") << "the other card";
  for (Running* running : {&first, &second, &other}) {
    write_line(*running, "go");
    EXPECT_TRUE(finish(*running).ok());
  }
}

TEST(Shim, HamisVariablesAreReadWhereOursAreAbsent) {
  const Outcome outcome =
      run_case("PrintsTotals", slice_environment({.memory = "",
                                                  .gpus = "40G,24G",
                                                  .more = {{"CUDA_DEVICE_MEMORY_LIMIT", "3g"},
                                                           {"CUDA_DEVICE_MEMORY_LIMIT_1", "2048m"},
                                                           {"ALLOT_NAME", "hami"}}}));
  EXPECT_EQ(line_with(outcome, "result"), "result 3/40 2/24") << outcome.output;
}

// Opens what another process of the slice offers.
CASE(OpensHandle) {
  const Cuda cuda;
  start_cuda(cuda);
  const uint64_t before = ledger_charged(ALLOT_KIND_IMPORT);
  CUipcMemHandle handle = {};
  FILE* file = fopen((machine_folder() + "/handle").c_str(), "rb");
  ASSERT_NE(file, nullptr);
  ASSERT_EQ(fread(&handle, sizeof(handle), 1, file), 1u);
  fclose(file);
  CUdeviceptr opened = 0;
  const CUresult result = cuda.cuIpcOpenMemHandle_v2(&opened, handle, 1);
  dprintf(1, "result %d charged %llu\n", static_cast<int>(result),
          static_cast<unsigned long long>((ledger_charged(ALLOT_KIND_IMPORT) - before) / kMiB));
  if (result != CUDA_SUCCESS) return;
  ASSERT_EQ(cuda.cuIpcCloseMemHandle(opened), CUDA_SUCCESS);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_IMPORT), before);
}

// Offers a block to others and keeps it until a line comes.
CASE(OffersHandle) {
  const Cuda cuda;
  start_cuda(cuda);
  CUdeviceptr block = 0;
  CUipcMemHandle handle = {};
  ASSERT_EQ(cuda.cuMemAlloc_v2(&block, 1000 * kMiB), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuIpcGetMemHandle(&handle, block), CUDA_SUCCESS);
  FILE* file = fopen((machine_folder() + "/handle").c_str(), "wb");
  ASSERT_NE(file, nullptr);
  ASSERT_EQ(fwrite(&handle, sizeof(handle), 1, file), 1u);
  fclose(file);
  dprintf(1, "result 0\n");
  char c;
  while (read(0, &c, 1) == 1 && c != '\n') {
  }
}

TEST(Shim, SharedMemoryIsChargedOnceInsideTheSliceAndAgainOutside) {
  const auto slice = [](const char* name, const char* memory) {
    return slice_environment({.memory = memory, .more = {{"ALLOT_NAME", name}}});
  };
  Running owner = start_case("OffersHandle", slice("owner", "4G"));
  EXPECT_EQ(skip_to_result(owner), "result 0");
  const Outcome inside = run_case("OpensHandle", slice("owner", "4G"));
  EXPECT_EQ(line_with(inside, "result"), "result 0 charged 0") << inside.output;
  EXPECT_TRUE(inside.ok()) << inside.output;
  const Outcome other = run_case("OpensHandle", slice("other", "4G"));
  EXPECT_EQ(line_with(other, "result"), "result 0 charged 1000") << other.output;
  EXPECT_TRUE(other.ok()) << other.output;
  const Outcome small = run_case("OpensHandle", slice("small", "1G"));
  EXPECT_EQ(line_with(small, "result"), "result 2 charged 0") << small.output;
  write_line(owner, "go");
  EXPECT_TRUE(finish(owner).ok());
}

// A process that names a slice of its own inside another one stays where its ancestor is.
SLICE_TEST(AChildCannotLeaveItsSliceByNamingAnother, "3G") {
  const Cuda cuda;
  start_cuda(cuda);
  const Outcome child = run_case(
      "PrintsTotals", slice_environment({.memory = "50G", .more = {{"ALLOT_NAME", "mine"}}}));
  EXPECT_EQ(line_with(child, "result"), "result 3/80") << child.output;
}

SLICE_TEST(ALimitLoweredBelowUseRefusesUntilItFits, "4G") {
  const Cuda cuda;
  start_cuda(cuda);
  CUdeviceptr big = 0;
  CUdeviceptr block = 0;
  ASSERT_EQ(cuda.cuMemAlloc_v2(&big, 2 * kGiB), CUDA_SUCCESS);
  Result<shm::Slice> slice =
      shm::open_slice((machine_folder() + "/region/default.slice").c_str(), true);
  ASSERT_TRUE(slice);
  core::Ledger(slice->file).set_limit(0, kGiB);
  EXPECT_EQ(cuda.cuMemAlloc_v2(&block, 1000), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(free_of(cuda), 0u);
  ASSERT_EQ(cuda.cuMemFree_v2(big), CUDA_SUCCESS) << "nothing was lost";
  EXPECT_EQ(cuda.cuMemAlloc_v2(&block, 100 * kMiB), CUDA_SUCCESS);
  EXPECT_LE(ledger_used(), kGiB);
}

// A context that does not fit into the slice is out of memory and leaves nothing charged.
SLICE_TEST(AContextThatDoesNotFitIsOutOfMemory, "256M") {
  const Cuda cuda;
  CUcontext context = nullptr;
  ASSERT_EQ(cuda.cuInit(0), CUDA_SUCCESS);
  EXPECT_EQ(cuda.cuDevicePrimaryCtxRetain(&context, 0), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(cuda.cuCtxCreate_v2(&context, 0, 0), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(ledger_used(), 0u);
}

SLICE_TEST(ContextsAreChargedAsDriverMemory, "8G") {
  const Cuda cuda;
  start_cuda(cuda);
  const uint64_t one = ledger_charged(ALLOT_KIND_DRIVER);
  EXPECT_EQ(one, physical_used());
  CUcontext second = nullptr;
  ASSERT_EQ(cuda.cuCtxCreate_v2(&second, 0, 0), CUDA_SUCCESS);
  EXPECT_GT(ledger_charged(ALLOT_KIND_DRIVER), one);
  ASSERT_EQ(cuda.cuCtxDestroy_v2(second), CUDA_SUCCESS);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_DRIVER), one);
}

CASE(InitResult) {
  const Cuda cuda;
  dprintf(1, "result %d\n", static_cast<int>(cuda.cuInit(0)));
}

TEST(Shim, ASliceThatCannotBeJoinedIsRefusedOrIgnoredByChoice) {
  const auto environment = [](const char* fail) {
    return slice_environment(
        {.more = {{"ALLOT_TENANT", "/nonexistent/x.slice"}, {"ALLOT_FAIL", fail}}});
  };
  EXPECT_EQ(line_with(run_case("InitResult", environment("closed")), "result"), "result 800");
  EXPECT_EQ(line_with(run_case("InitResult", environment("open")), "result"), "result 0");
}

// ---- NVML -------------------------------------------------------------------------------------

CASE(SeesItsSliceInNvml) {
  const Cuda cuda;
  start_cuda(cuda);
  CUdeviceptr block = 0;
  ASSERT_EQ(cuda.cuMemAlloc_v2(&block, kGiB), CUDA_SUCCESS);
  void* nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW);
  ASSERT_NE(nvml, nullptr);
  const auto init = reinterpret_cast<nvmlReturn_t (*)()>(dlsym(nvml, "nvmlInit_v2"));
  const auto handle_of = reinterpret_cast<nvmlReturn_t (*)(unsigned, nvmlDevice_t*)>(
      dlsym(nvml, "nvmlDeviceGetHandleByIndex_v2"));
  const auto memory = reinterpret_cast<nvmlReturn_t (*)(nvmlDevice_t, nvmlMemory_t*)>(
      dlsym(nvml, "nvmlDeviceGetMemoryInfo"));
  const auto memory_v2 = reinterpret_cast<nvmlReturn_t (*)(nvmlDevice_t, nvmlMemory_v2_t*)>(
      dlsym(nvml, "nvmlDeviceGetMemoryInfo_v2"));
  const auto list = reinterpret_cast<nvmlReturn_t (*)(nvmlDevice_t, unsigned*, nvmlProcessInfo_t*)>(
      dlsym(nvml, "nvmlDeviceGetComputeRunningProcesses_v3"));
  nvmlDevice_t device = nullptr;
  nvmlMemory_t v1 = {};
  nvmlMemory_v2_t v2 = {};
  v2.version = ALLOT_NVML_VERSION(nvmlMemory_v2_t, 2);
  ASSERT_EQ(init(), NVML_SUCCESS);
  ASSERT_EQ(handle_of(0, &device), NVML_SUCCESS);
  ASSERT_EQ(memory(device, &v1), NVML_SUCCESS);
  EXPECT_EQ(v1.total, 3 * kGiB);
  EXPECT_EQ(v1.used, ledger_used());
  EXPECT_EQ(v1.free, 3 * kGiB - ledger_used());
  ASSERT_EQ(memory_v2(device, &v2), NVML_SUCCESS);
  EXPECT_EQ(v2.total, 3 * kGiB);
  EXPECT_EQ(v2.used, ledger_used());
  // Processes of other slices on the same card are not in the list; our own is.
  nvmlProcessInfo_t processes[16] = {};
  unsigned count = 0;
  EXPECT_EQ(list(device, &count, nullptr), NVML_ERROR_INSUFFICIENT_SIZE);
  EXPECT_EQ(count, 1u);
  count = 16;
  ASSERT_EQ(list(device, &count, processes), NVML_SUCCESS);
  ASSERT_EQ(count, 1u);
  EXPECT_EQ(processes[0].pid, static_cast<unsigned>(getpid()));
}

// NVML finds an instance of a card by another beginning of its UUID.
TEST(Shim, NvmlShowsTheSliceOfAMigInstance) {
  const Outcome outcome = run_case(
      "SeesItsSliceInNvml", slice_environment({.memory = "3G", .more = {{"ALLOT_SIM_MIG", "1"}}}));
  EXPECT_TRUE(outcome.ok()) << outcome.output;
}

TEST(Shim, NvmlShowsTheSlice) {
  Running other = start_case(
      "Holds", slice_environment({.memory = "4G", .more = {{"ALLOT_NAME", "other"}}}), {"100"});
  EXPECT_EQ(skip_to_result(other), "result 0");
  const Outcome outcome = run_case("SeesItsSliceInNvml", slice_environment({.memory = "3G"}));
  EXPECT_TRUE(outcome.ok()) << outcome.output;
  write_line(other, "go");
  EXPECT_TRUE(finish(other).ok());
}

// Prints what the environment made of the slice: share, ceiling, priority, level of the first two
// GPUs.
CASE(TellsItsTime) {
  const Cuda cuda;
  start_cuda(cuda);
  Result<shm::Slice> slice =
      shm::open_slice((machine_folder() + "/region/default.slice").c_str(), false);
  ASSERT_TRUE(slice.has_value());
  const AllotSliceFile& file = *slice->file;
  dprintf(1, "time");
  for (const AllotGpu& gpu : {file.gpus[0], file.gpus[1]}) {
    dprintf(1, " %u/%u", gpu.share_permille, gpu.max_permille);
  }
  dprintf(1, " %u %u\n", file.header.priority, file.header.level);
  shm::unmap(*slice);
}

std::string time_of(const Environment& more, const std::string& memory = "") {
  Options options = {.memory = memory, .gpus = "2x16G"};
  options.more = more;
  const Outcome outcome = run_case("TellsItsTime", slice_environment(options));
  EXPECT_TRUE(outcome.ok()) << outcome.output;
  const size_t begin = outcome.output.find("time ");
  if (begin == std::string::npos) return outcome.output;
  return outcome.output.substr(begin + 5, outcome.output.find('\n', begin) - begin - 5);
}

TEST(Shim, TheEnvironmentNamesGpuTime) {
  EXPECT_EQ(time_of({{"ALLOT_GPU_SHARE", "30%"},
                     {"ALLOT_GPU_MAX_1", "50"},
                     {"ALLOT_PRIORITY", "low"},
                     {"ALLOT_LEVEL", "launch"}}),
            "300/0 300/500 2 2");
  EXPECT_EQ(time_of({{"ALLOT_GPU_SHARE", "60"}, {"ALLOT_GPU_MAX", "50"}}), "600/600 600/600 0 0");
}

TEST(Shim, TheEnvironmentNamesGpuTimeInHamisWords) {
  EXPECT_EQ(time_of({{"CUDA_DEVICE_SM_LIMIT", "30"}, {"CUDA_TASK_PRIORITY", "0"}}),
            "300/300 300/300 1 0");
  EXPECT_EQ(time_of({{"CUDA_DEVICE_SM_LIMIT_1", "25"}, {"CUDA_TASK_PRIORITY", "1"}}),
            "0/0 250/250 2 0");
  EXPECT_EQ(time_of({{"CUDA_DEVICE_SM_LIMIT", "30"}, {"GPU_CORE_UTILIZATION_POLICY", "force"}}),
            "300/300 300/300 0 0");
  EXPECT_EQ(time_of({{"CUDA_DEVICE_SM_LIMIT", "30"}, {"GPU_CORE_UTILIZATION_POLICY", "disable"}}),
            "0/0 0/0 0 0");
  for (const char* none : {"100", "0"}) {
    EXPECT_EQ(time_of({{"CUDA_DEVICE_SM_LIMIT", none}}), "0/0 0/0 0 0");
  }
  EXPECT_EQ(time_of({{"CUDA_DEVICE_SM_LIMIT", "30"}, {"ALLOT_GPU_SHARE", "40"}}),
            "400/0 400/0 0 0");
}

}  // namespace
}  // namespace allot::shim_test
