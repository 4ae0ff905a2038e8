#include "test_support.h"

#include <dlfcn.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <filesystem>
#include <map>

#include "abi/env.h"

namespace allot::sim_test {
namespace {

void* symbol(void* library, const char* name) {
  void* at = library != nullptr ? dlsym(library, name) : nullptr;
  if (at == nullptr) {
    fprintf(stderr, "no %s: %s\n", name, dlerror());
    _exit(99);
  }
  return at;
}

int g_to_parent = -1, g_from_parent = -1;
std::string g_folder;

std::string read_line(int fd) {
  std::string line;
  for (char c;;) {
    pollfd wait{fd, POLLIN, 0};
    if (poll(&wait, 1, 60'000) != 1 || ::read(fd, &c, 1) != 1) return line;
    if (c == '\n') return line;
    line += c;
  }
}

void write_line(int fd, const std::string& text) {
  const std::string line = text + "\n";
  if (::write(fd, line.data(), line.size()) != static_cast<ssize_t>(line.size())) _exit(98);
}

}  // namespace

const char kPtx[] = R"(
.version 7.0
.target sm_70
.address_size 64
.visible .entry allot_spin(.param .u64 iters, .param .u64 sink) { mov.u64 %rd1, 1; ret; }
.visible .entry allot_spin_told(.param .u64 iters, .param .u64 sink, .param .u64 told,
                                .param .u64 base) { mov.u64 %rd1, 1; ret; }
.visible .entry allot_fill(.param .u64 dst, .param .u64 words, .param .u32 value) { mov.u64 %rd1, 1; ret; }
.visible .entry allot_check(.param .u64 src, .param .u64 words, .param .u32 value,
                            .param .u64 mismatches) { mov.u64 %rd1, 1; ret; }
.visible .entry allot_fma(.param .u64 data, .param .u64 words, .param .u32 rounds) { mov.u64 %rd1, 1; ret; }
.visible .entry nothing() { .reg .b32 %r<2>; ret; } // an empty kernel
.visible .entry stranger(.param .align 8 .b8 blob[24], .param .u32 n) { st.global.u32 [%rd1], %r1; ret; }
)";

void* cuda_symbol(const char* name) {
  static void* library = dlopen(ALLOT_SIM_CUDA, RTLD_NOW | RTLD_LOCAL);
  return symbol(library, name);
}

void* nvml_symbol(const char* name) {
  static void* library = dlopen(ALLOT_SIM_NVML, RTLD_NOW | RTLD_LOCAL);
  return symbol(library, name);
}

void Sim::SetUp() {
  char folder[] = "/dev/shm/allot-sim-test-XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  g_folder = folder;
  setenv(ALLOT_ENV_SIM_DIR, folder, 1);
  unsetenv(ALLOT_ENV_SIM_FAULTS);
  unsetenv("CUDA_VISIBLE_DEVICES");
  setenv(ALLOT_ENV_SIM_GPUS, "1x4G", 1);
}

void Sim::TearDown() {
  std::error_code ignored;
  std::filesystem::remove_all(g_folder, ignored);
}

void Sim::gpus(const char* text) {
  setenv(ALLOT_ENV_SIM_GPUS, text, 1);
}

Child::Child(const std::function<void()>& body) {
  int down[2], up[2];
  if (pipe(down) != 0 || pipe(up) != 0) abort();
  pid_ = fork();
  if (pid_ == 0) {
    close(down[1]);
    close(up[0]);
    g_from_parent = down[0];
    g_to_parent = up[1];
    body();
    _exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  close(down[0]);
  close(up[1]);
  in_ = down[1];
  out_ = up[0];
}

Child::~Child() {
  if (!reaped_) {
    ::kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  close(in_);
  close(out_);
}

void Child::kill() {
  ::kill(pid_, SIGKILL);
  siginfo_t info;
  waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT);  // dead, and still a zombie
}

bool Child::finish() {
  int status = 0;
  waitpid(pid_, &status, 0);
  reaped_ = true;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

std::string Child::read() {
  return read_line(out_);
}
void Child::write(const std::string& message) {
  write_line(in_, message);
}
void tell(const std::string& message) {
  write_line(g_to_parent, message);
}
std::string listen() {
  return read_line(g_from_parent);
}

CUcontext start(CUdevice device) {
  CUcontext context = nullptr;
  if (const CUresult r = CU(cuInit)(0u); r != CUDA_SUCCESS) {
    ADD_FAILURE() << "cuInit: " << r;
    return nullptr;
  }
  EXPECT_CU(CU(cuDevicePrimaryCtxRetain)(&context, device));
  EXPECT_CU(CU(cuCtxSetCurrent)(context));
  return context;
}

uint64_t free_memory() {
  size_t left = 0, total = 0;
  EXPECT_CU(CU(cuMemGetInfo_v2)(&left, &total));
  return left;
}

uint64_t nvml_used(unsigned gpu, int pid) {
  nvmlDevice_t device = nullptr;
  EXPECT_EQ(NVML(nvmlInit_v2)(), NVML_SUCCESS);
  EXPECT_EQ(NVML(nvmlDeviceGetHandleByIndex_v2)(gpu, &device), NVML_SUCCESS);
  nvmlProcessInfo_t infos[64];
  unsigned count = 64;
  EXPECT_EQ(NVML(nvmlDeviceGetComputeRunningProcesses_v3)(device, &count, &infos[0]), NVML_SUCCESS);
  EXPECT_EQ(NVML(nvmlShutdown)(), NVML_SUCCESS);
  for (unsigned i = 0; i < count; i++) {
    if (infos[i].pid == static_cast<unsigned>(pid)) return infos[i].usedGpuMemory;
  }
  return 0;
}

CUfunction function(const char* name) {
  static std::map<CUcontext, CUmodule> modules;
  CUcontext current = nullptr;
  EXPECT_CU(CU(cuCtxGetCurrent)(&current));
  CUmodule& module = modules[current];
  if (module == nullptr) {
    EXPECT_CU(CU(cuModuleLoadData)(&module, static_cast<const void*>(kPtx)));
  }
  CUfunction found = nullptr;
  EXPECT_CU(CU(cuModuleGetFunction)(&found, module, name));
  return found;
}

static CUresult launch(CUstream stream, CUfunction f, void** arguments) {
  return CU(cuLaunchKernel)(f, 1u, 1u, 1u, 32u, 1u, 1u, 0u, stream, arguments,
                            static_cast<void**>(nullptr));
}

CUresult spin(CUstream stream, uint64_t ns) {
  static CUfunction f = function("allot_spin");
  uint64_t sink = 0;
  void* arguments[] = {&ns, &sink};
  return launch(stream, f, arguments);
}

CUresult spin_told(CUstream stream, uint64_t ns, uint64_t told, uint64_t base) {
  uint64_t sink = 0;
  void* arguments[] = {&ns, &sink, &told, &base};
  return launch(stream, function("allot_spin_told"), arguments);
}

CUresult fill(CUstream stream, CUdeviceptr at, uint64_t words, uint32_t value) {
  void* arguments[] = {&at, &words, &value};
  return launch(stream, function("allot_fill"), arguments);
}

uint64_t mismatches(CUdeviceptr at, uint64_t words, uint32_t value, CUdeviceptr given) {
  CUdeviceptr sum = given;
  uint64_t result = 0;
  if (given == 0) {
    EXPECT_CU(CU(cuMemAlloc_v2)(&sum, size_t{8}));
  }
  EXPECT_CU(CU(cuMemsetD32_v2)(sum, 0u, size_t{2}));
  void* arguments[] = {&at, &words, &value, &sum};
  EXPECT_CU(launch(nullptr, function("allot_check"), arguments));
  EXPECT_CU(CU(cuMemcpyDtoH_v2)(static_cast<void*>(&result), sum, size_t{8}));
  if (given == 0) {
    EXPECT_CU(CU(cuMemFree_v2)(sum));
  }
  return result;
}

uint64_t keep_busy(CUstream stream, uint64_t ns, int64_t until_ns) {
  uint64_t done = 0;
  CUevent marks[2] = {};
  for (CUevent& mark : marks)
    EXPECT_CU(CU(cuEventCreate)(&mark, unsigned{CU_EVENT_DISABLE_TIMING}));
  for (int turn = 0; clock_ns() < until_ns;
       turn ^= 1) {  // one batch runs while the other is queued
    EXPECT_CU(CU(cuEventSynchronize)(marks[turn]));
    for (int i = 0; i < 8; i++) EXPECT_CU(spin(stream, ns));
    EXPECT_CU(CU(cuEventRecord)(marks[turn], stream));
    done += 8 * ns;
  }
  EXPECT_CU(CU(cuStreamSynchronize)(stream));
  return done;
}

int64_t clock_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1'000'000'000ll + t.tv_nsec;
}

}  // namespace allot::sim_test
