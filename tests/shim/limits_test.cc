// A limit that cannot be read is no permission; the slice says which GPUs there are; threads and
// copies of ours leave the host alone.
#include <dlfcn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "abi/env.h"
#include "tests/shim/harness.h"

namespace allot::shim_test {
namespace {

CASE(Starts) {
  const Cuda cuda;
  printf("cuInit %d\n", cuda.cuInit(0));
}

Outcome starts_with(const Environment& more) {
  Options options;
  options.memory = "";
  options.more = more;
  return run_case("Starts", slice_environment(options));
}

TEST(Limits, WhatCannotBeReadIsSaidAndRefused) {
  const std::pair<const char*, const char*> slips[] = {{"ALLOT_GPU_MEM", "2x"},
                                                       {"ALLOT_GPU_MEM", ""},
                                                       {"ALLOT_GPU_MEM", "0"},
                                                       {"ALLOT_GPU_MEM", "-1"},
                                                       {"ALLOT_GPU_MEM", " 2G"},
                                                       {"ALLOT_GPU_MEM", "8"},
                                                       {"ALLOT_GPU_MEM_1", "2x"},
                                                       {"ALLOT_GPU_MEM_x", "2G"},
                                                       {"ALLOT_GPU_MAX", "30x"},
                                                       {"ALLOT_GPU_MAX", "0"},
                                                       {"ALLOT_GPU_MAX", "150"},
                                                       {"ALLOT_GPU_SHARE", "nan"},
                                                       {"ALLOT_PRIORITY", "x"},
                                                       {"ALLOT_LEVEL", "Channel"},
                                                       {"ALLOT_SWAP", "quick"},
                                                       {"CUDA_TASK_PRIORITY", "no"},
                                                       {"CUDA_DEVICE_MEMORY_LIMIT", "8q"},
                                                       {"CUDA_DEVICE_SM_LIMIT_0", "x"}};
  for (const auto& [name, value] : slips) {
    SCOPED_TRACE(std::string(name) + "=" + value);
    const Outcome closed = starts_with({{name, value}, {"ALLOT_FAIL", "closed"}});
    EXPECT_NE(closed.output.find("cuInit 800"), std::string::npos) << closed.output;
    EXPECT_NE(closed.output.find(std::string("allot: ") + name), std::string::npos)
        << closed.output;
    const Outcome open = starts_with({{name, value}});
    EXPECT_NE(open.output.find("cuInit 0"), std::string::npos) << open.output;
    EXPECT_NE(open.output.find("without limits"), std::string::npos) << open.output;
  }
}

TEST(Limits, AnUnknownWordForFailIsClosed) {
  for (const char* word : {"Closed", "CLOSED", "yes", ""}) {
    const Outcome outcome = starts_with({{"ALLOT_GPU_MEM", "2G"}, {"ALLOT_FAIL", word}});
    EXPECT_NE(outcome.output.find("cuInit 800"), std::string::npos) << word << outcome.output;
  }
}

TEST(Limits, WhatCanBeReadSaysNothing) {
  const Outcome outcome = starts_with({{"ALLOT_GPU_MEM", "2G"},
                                       {"ALLOT_GPU_MEM_0", "none"},
                                       {"CUDA_DEVICE_SM_LIMIT", "0"},
                                       {"CUDA_DEVICE_MEMORY_LIMIT_1", "0"},
                                       {"ALLOT_FAIL", "closed"}});
  EXPECT_NE(outcome.output.find("cuInit 0"), std::string::npos) << outcome.output;
  EXPECT_EQ(outcome.output.find("allot:"), std::string::npos) << outcome.output;
}

TEST(Limits, AFileSizeLimitIsALineAndNoSignal) {
  struct rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  struct rlimit small = before;
  small.rlim_cur = 100 * 1024;
  const auto small_machine = starts_with({});  // makes the machine's files
  setrlimit(RLIMIT_FSIZE, &small);
  const Outcome outcome = starts_with({{"ALLOT_GPU_MEM", "2G"}, {"ALLOT_FAIL", "closed"}});
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_TRUE(WIFEXITED(outcome.status)) << outcome.output;
  EXPECT_NE(outcome.output.find("ulimit -f"), std::string::npos) << outcome.output;
}

CASE(TellsUuid) {
  const Cuda cuda((sim_folder() + "/libcuda.so.1").c_str());
  CUuuid uuid = {};
  EXPECT_EQ(cuda.cuInit(0), CUDA_SUCCESS);
  EXPECT_EQ(cuda.cuDeviceGetUuid_v2(&uuid, 1), CUDA_SUCCESS);
  printf("uuid ");
  for (char byte : uuid.bytes) printf("%02x", static_cast<unsigned char>(byte));
  printf("\n");
}

// How many GPUs there are, to CUDA and to NVML, and how large the first one is.
CASE(TellsItsGpus) {
  const Cuda cuda;
  int count = 0;
  size_t bytes = 0;
  if (cuda.cuInit(0) == CUDA_SUCCESS) {
    EXPECT_EQ(cuda.cuDeviceGetCount(&count), CUDA_SUCCESS);
    EXPECT_EQ(cuda.cuDeviceTotalMem_v2(&bytes, 0), CUDA_SUCCESS);
  }
  void* nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW);
  unsigned seen = 0;
  EXPECT_EQ(reinterpret_cast<int (*)()>(dlsym(nvml, "nvmlInit_v2"))(), 0);
  EXPECT_EQ(reinterpret_cast<int (*)(unsigned*)>(dlsym(nvml, "nvmlDeviceGetCount_v2"))(&seen), 0);
  void* handle = nullptr;
  const auto by_index =
      reinterpret_cast<int (*)(unsigned, void**)>(dlsym(nvml, "nvmlDeviceGetHandleByIndex_v2"));
  EXPECT_EQ(by_index(0, &handle), 0);
  EXPECT_NE(by_index(1, &handle), 0);
  printf("gpus %d %zu %u\n", count, bytes >> 20, seen);
}

TEST(Limits, TheSliceSaysWhichGpusThereAreAndTheVariableOnlyNarrows) {
  Options options;
  options.gpus = "2x16G";
  options.memory = "";
  const Outcome told = run_case("TellsUuid", bare_environment(options));
  const size_t at = told.output.find("uuid ");
  ASSERT_NE(at, std::string::npos) << told.output;
  uint8_t uuid[16];
  for (size_t i = 0; i < 16; ++i) {
    uuid[i] = static_cast<uint8_t>(std::stoi(told.output.substr(at + 5 + 2 * i, 2), nullptr, 16));
  }
  const std::string folder = machine_folder() + "/region";
  auto made = shm::create_slice(folder.c_str(), {"one", ALLOT_SLICE_OWN_GPUS, getpid(), 0, 0});
  ASSERT_TRUE(made);
  ASSERT_TRUE(shm::find_or_add_gpu(*made, uuid, 4 * kGiB, 16 * kGiB));
  made->file->gpus[0].index_plus_one = 2;
  const std::pair<const char*, const char*> asked[] = {
      {nullptr, "gpus 1 4096 1"}, {"0", "gpus 1 4096 1"},   {"1", "gpus 0 0 1"},
      {"", "gpus 0 0 1"},         {"0,1", "gpus 1 4096 1"}, {"GPU-616c", "gpus 1 4096 1"},
      {"-1", "gpus 0 0 1"},       {"GPU-ff", "gpus 0 0 1"}};
  for (const auto& [value, answer] : asked) {
    options.more = {{"ALLOT_TENANT", folder + "/one.slice"}};
    if (value != nullptr) options.more["CUDA_VISIBLE_DEVICES"] = value;
    const Outcome outcome = run_case("TellsItsGpus", slice_environment(options));
    EXPECT_NE(outcome.output.find(answer), std::string::npos)
        << (value != nullptr ? value : "(unset)") << ": " << outcome.output;
  }
  shm::unmap(*made);
}

TEST(Limits, AProgramWithManyThreadLocalVariablesIsHeldAndNotHurt) {
  for (const char* kib : {"8", "200", "244", "250", "2048"}) {
    Environment environment = slice_environment({.memory = "2G"});
    environment[ALLOT_ENV_GPU_SHARE] = "50";
    const Outcome outcome = run_program(
        {std::string(ALLOT_TEST_BUILD_DIR "/test/shim_tls_program_") + kib}, environment);
    EXPECT_EQ(outcome.status, 0) << kib << " KiB";
    EXPECT_NE(outcome.output.find("init 0 context 0 allocation 0 too much 2\n"), std::string::npos)
        << kib << " KiB: " << outcome.output;
  }
}

SLICE_TEST(ASecondCopyInAnotherLinkNamespaceLeavesTheFirstOnesSlot, "4G") {
  if (ALLOT_TEST_SANITIZED) return;  // their runtimes cannot be loaded twice
  const Cuda cuda;
  start_cuda(cuda);
  CUdeviceptr block = 0;
  ASSERT_EQ(cuda.cuMemAlloc_v2(&block, kGiB), CUDA_SUCCESS);
  const uint64_t before = ledger_used();
  void* copy = dlmopen(LM_ID_NEWLM, "libcuda.so.1", RTLD_NOW);
  ASSERT_NE(copy, nullptr) << dlerror();
  const Entry<unsigned> init(copy, "cuInit");
  ASSERT_EQ(init(0), CUDA_SUCCESS);
  EXPECT_GE(ledger_used(), before);
  ASSERT_EQ(cuda.cuMemAlloc_v2(&block, 4 * kMiB), CUDA_SUCCESS) << "the first one continues";
  EXPECT_EQ(ledger_charged(ALLOT_KIND_LINEAR), kGiB + 4 * kMiB);
}

}  // namespace
}  // namespace allot::shim_test
