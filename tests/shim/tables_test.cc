// Tables of GPU time at N + 1, in whole processes: what does not fit is refused where the slice
// fails closed, runs and is said where it fails open; whoever fits keeps its limits.
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "abi/env.h"
#include "core/shared.h"
#include "shm/time_view.h"
#include "sys/clock.h"
#include "tests/shim/life.h"

namespace allot::shim_test {
namespace {

Environment with_ceiling(const char* fail) {
  return slice_environment({.more = {{ALLOT_ENV_GPU_MAX, "30"}, {ALLOT_ENV_FAIL, fail}}});
}

class OwnSlice {
 public:
  OwnSlice() {
    auto slice = shm::open_slice(slice_file().c_str(), true);
    if (slice) slice_ = *slice;
  }
  ~OwnSlice() { shm::unmap(slice_); }
  AllotSliceFile* operator->() { return slice_.file; }
  // Our own slot, and its word.
  AllotSlot& slot(uint64_t* word = nullptr) {
    for (uint32_t i = 0; i < ALLOT_MAX_SLOTS; ++i) {
      const uint64_t found = core::load(slice_.file->slot_words[i]);
      if (ALLOT_SLOT_PID(found) != static_cast<uint32_t>(getpid())) continue;
      if (word != nullptr) *word = found;
      index = i;
      return slice_.file->slots[i];
    }
    ADD_FAILURE() << "no slot";
    return slice_.file->slots[0];
  }
  uint32_t clients_of(uint32_t pid) {
    uint32_t count = 0;
    for (const AllotGpuClient& client : slice_.file->clients) {
      const uint64_t owner = core::load(client.owner);
      count += owner != 0 && ALLOT_SLOT_PID(owner) == pid ? 1u : 0u;
    }
    return count;
  }
  // A process that lives takes all places but `spare`: ourselves, on GPUs that we do not have.
  void fill_clients(uint32_t spare) {
    uint64_t word = 0;
    slot(&word);
    uint32_t left = ALLOT_MAX_CLIENTS - spare;
    for (AllotGpuClient& client : slice_.file->clients) {
      if (core::load(client.owner) != 0) continue;
      if (left-- == 0) return;
      client.slot = index;
      client.gpu = 15;
      core::store(client.owner, word);
    }
  }
  void empty_clients() {
    for (AllotGpuClient& client : slice_.file->clients) {
      if (client.gpu == 15) core::store(client.owner, uint64_t{0});
    }
  }
  uint32_t index = 0;

 private:
  shm::Slice slice_;
};

// ---- clients of a slice --------------------------------------------------------------------

SLICE_TEST(TablesAProcessThatOnlyLooksAtItsGpusTakesNoClient, .gpus = "8x80G") {
  const Cuda cuda;
  ASSERT_EQ(cuda.cuInit(0), CUDA_SUCCESS);
  size_t bytes = 0;
  for (int i = 0; i < 8; ++i) EXPECT_EQ(cuda.cuDeviceTotalMem_v2(&bytes, i), CUDA_SUCCESS);
  OwnSlice slice;
  usleep(300'000);  // two of the agent's rounds
  EXPECT_EQ(slice.clients_of(static_cast<uint32_t>(getpid())), 0u);
  CUcontext context = nullptr;
  ASSERT_EQ(cuda.cuDevicePrimaryCtxRetain(&context, 3), CUDA_SUCCESS);
  EXPECT_EQ(slice.clients_of(static_cast<uint32_t>(getpid())), 1u) << "before any work";
  ASSERT_EQ(cuda.cuDevicePrimaryCtxRelease_v2(3), CUDA_SUCCESS);
  EXPECT_TRUE(wait_until([&] { return slice.clients_of(static_cast<uint32_t>(getpid())) == 0; }))
      << "given back";
  ASSERT_EQ(cuda.cuDevicePrimaryCtxRetain(&context, 3), CUDA_SUCCESS);
  EXPECT_EQ(slice.clients_of(static_cast<uint32_t>(getpid())), 1u) << "and taken again";
}

CASE(TablesThe257thClient) {
  const Cuda cuda;
  say("init " + std::to_string(cuda.cuInit(0)));
  OwnSlice slice;
  slice.fill_clients(case_arguments().at(0) == "256th" ? 1 : 0);
  CUcontext context = nullptr;
  const CUresult made = cuda.cuDevicePrimaryCtxRetain(&context, 0);
  say("context " + std::to_string(made));
  say("unheld " + std::to_string(core::load(slice.slot().unheld_gpus)));
  if (made != CUDA_SUCCESS) return;
  ASSERT_EQ(cuda.cuCtxSetCurrent(context), CUDA_SUCCESS);
  CUdeviceptr block = 0;
  ASSERT_EQ(cuda.cuMemAlloc_v2(&block, kMiB), CUDA_SUCCESS);
  using Set = CUresult (*)(CUdeviceptr, unsigned, size_t);
  const auto set = reinterpret_cast<Set>(dlsym(cuda.library, "cuMemsetD32_v2"));
  say("work " + std::to_string(set(block, 7, 16)));
  if (case_arguments().at(0) != "later") return;
  // A rule that comes later holds, too; and a place that is given back is taken.
  __atomic_fetch_or(&slice->header.flags, ALLOT_SLICE_FAIL_CLOSED, __ATOMIC_SEQ_CST);
  EXPECT_TRUE(wait_until([&] { return set(block, 7, 16) == CUDA_ERROR_NOT_PERMITTED; }));
  slice.empty_clients();
  EXPECT_TRUE(wait_until([&] { return set(block, 7, 16) == CUDA_SUCCESS; }));
  EXPECT_EQ(core::load(slice.slot().unheld_gpus), 0u);
}

// Without the lines that allot says on stderr, which is the same pipe here.
std::string said_by_program(const std::string& output) {
  std::istringstream lines(output);
  std::string said;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("allot: ")) said += line + "\n";
  }
  return said;
}

std::string client_case(const char* which, const Environment& environment) {
  const Outcome outcome = run_case("TablesThe257thClient", environment, {which});
  EXPECT_TRUE(outcome.ok()) << outcome.output;
  return said_by_program(outcome.output);
}

TEST(Tables, The257thClientIsRefusedByASliceThatFailsClosed) {
  EXPECT_NE(client_case("256th", with_ceiling("closed")).find("context 0\nunheld 0\nwork 0\n"),
            std::string::npos);
  EXPECT_NE(client_case("257th", with_ceiling("closed")).find("init 0\ncontext 800\nunheld 1\n"),
            std::string::npos);
  EXPECT_EQ(lines_with(log_text(), "256 GPU clients already; GPU work is refused"), 1u)
      << log_text();
}

TEST(Tables, The257thClientRunsAndIsSaidToInASliceThatFailsOpen) {
  EXPECT_NE(client_case("257th", with_ceiling("open")).find("context 0\nunheld 1\nwork 0\n"),
            std::string::npos);
  EXPECT_EQ(lines_with(log_text(), "256 GPU clients already; this process "), 1u) << log_text();
}

TEST(Tables, AClientThatHasNoPlaceIsHeldByARuleThatComesLaterAndTakesAPlaceThatComesFree) {
  client_case("later", with_ceiling("open"));
}

// ---- GPUs of a slice -----------------------------------------------------------------------

CASE(TablesThe17thGpu) {
  const Cuda cuda;
  ASSERT_EQ(cuda.cuInit(0), CUDA_SUCCESS);
  OwnSlice slice;
  say("beyond " + std::to_string(core::load(slice.slot().gpus_beyond)));
  CUcontext context = nullptr;
  CUdeviceptr block = 0;
  for (const CUdevice gpu : {0, 15}) {
    ASSERT_EQ(cuda.cuDevicePrimaryCtxRetain(&context, gpu), CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuCtxSetCurrent(context), CUDA_SUCCESS);
    EXPECT_EQ(cuda.cuMemAlloc_v2(&block, 3 * kGiB), CUDA_ERROR_OUT_OF_MEMORY) << gpu;
    EXPECT_EQ(cuda.cuMemAlloc_v2(&block, kGiB), CUDA_SUCCESS) << gpu;
  }
  // Its memory can be had without a context there, too.
  CUmemAllocationProp properties = {};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, 16};
  CUmemGenericAllocationHandle handle = 0;
  const CUresult mapped = cuda.cuMemCreate(&handle, 2 * kMiB, &properties, 0);
  CUmemoryPool pool = nullptr;
  ASSERT_EQ(cuda.cuDeviceGetDefaultMemPool(&pool, 16), CUDA_SUCCESS);
  const CUresult pooled = cuda.cuMemAllocFromPoolAsync(&block, kMiB, pool, nullptr);
  say("memory " + std::to_string(mapped) + ' ' + std::to_string(pooled));
  const CUresult made = cuda.cuDevicePrimaryCtxRetain(&context, 16);
  say("17th " + std::to_string(made));
  EXPECT_EQ(cuda.cuDevicePrimaryCtxRetain(&context, 17), CUDA_ERROR_INVALID_DEVICE);
  EXPECT_EQ(cuda.cuDevicePrimaryCtxRetain(&context, -1), CUDA_ERROR_INVALID_DEVICE);
}

std::string gpu_case(const char* fail) {
  const Outcome outcome = run_case(
      "TablesThe17thGpu",
      slice_environment({.memory = "2G", .gpus = "17x8G", .more = {{ALLOT_ENV_FAIL, fail}}}));
  EXPECT_TRUE(outcome.ok()) << outcome.output;
  return said_by_program(outcome.output);
}

TEST(Tables, The17thGpuIsRefusedByASliceThatFailsClosedAndTheOthersKeepTheirLimits) {
  EXPECT_NE(gpu_case("closed").find("beyond 1\nmemory 800 800\n17th 800\n"), std::string::npos);
  EXPECT_EQ(lines_with(log_text(), "16 GPUs: 1 more is refused"), 1u) << log_text();
}

TEST(Tables, The17thGpuIsNotLimitedInASliceThatFailsOpenAndTheOthersAre) {
  EXPECT_NE(gpu_case("open").find("beyond 1\nmemory 0 0\n17th 0\n"), std::string::npos);
  EXPECT_EQ(lines_with(log_text(), "16 GPUs: 1 more is not limited"), 1u) << log_text();
}

// ---- slices on a GPU -----------------------------------------------------------------------

// Slices that have work on the GPU of the machine's slice, all of them older, until the end.
class OlderSlices {
 public:
  explicit OlderSlices(uint32_t count) {
    static shm::TimeView view;
    EXPECT_TRUE(shm::read_time_view(slice_file().c_str(), &view));
    for (uint32_t i = 0; i < count; ++i) {
      const std::string name = "older" + std::to_string(i);
      auto slice = shm::create_slice((machine_folder() + "/region").c_str(),
                                     {name.c_str(), 0, static_cast<int32_t>(getpid()), 0, 0});
      EXPECT_TRUE(slice) << name;
      if (!slice) return;
      slice->file->header.created_unix_ns = 1'000'000 * i;
      EXPECT_TRUE(shm::find_or_add_gpu(*slice, view.gpus[0].uuid, ALLOT_UNLIMITED, kGiB));
      slices_.push_back(*slice);
    }
    work_ = std::thread([this] {
      while (!end_.load()) {
        for (const shm::Slice& slice : slices_) {
          AllotGpuClient& client = slice.file->clients[0];
          client.flags = ALLOT_CLIENT_ACTIVE | ALLOT_CLIENT_AWAKE;
          client.owner = ALLOT_SLOT_WORD(ALLOT_SLOT_LIVE, 1, getpid());
          core::store(client.heartbeat_ns, sys::monotonic_ns());
        }
        usleep(20'000);
      }
    });
  }
  ~OlderSlices() {
    end_.store(true);
    if (work_.joinable()) work_.join();
    for (uint32_t i = 0; i < slices_.size(); ++i) {
      shm::unmap(slices_[i]);
      unlink(slice_file("older" + std::to_string(i)).c_str());
    }
  }
  OlderSlices(const OlderSlices&) = delete;
  OlderSlices& operator=(const OlderSlices&) = delete;

 private:
  std::vector<shm::Slice> slices_;
  std::thread work_;
  std::atomic<bool> end_{false};
};

bool crowded(pid_t pid) {
  static shm::TimeView view;
  if (!shm::read_time_view(slice_file().c_str(), &view)) return false;
  for (const AllotGpuClient& client : view.clients) {
    if (client.owner == 0 || ALLOT_SLOT_PID(client.owner) != static_cast<uint32_t>(pid)) continue;
    return client.reason == ALLOT_REASON_CROWDED;
  }
  return false;
}

TEST(Tables, The65thSliceOnAGpuIsRefusedWhereItFailsClosed) {
  Running worker = start_case("ClosedWorker", with_ceiling("closed"));
  ASSERT_TRUE(says(worker, "ready"));
  const OlderSlices others(64);
  std::string line;
  const auto begin = Clock::now();
  while (line = read_line(worker), line == "at work" && seconds_since(begin) < 20) {
  }
  EXPECT_EQ(line, "ended with 800");
  write_line(worker, "end");
  const Outcome outcome = finish(worker);
  EXPECT_TRUE(outcome.ok()) << outcome.output;
}

TEST(Tables, The65thSliceOnAGpuRunsAndIsSaidToWhereItFailsOpen) {
  Running worker = start_case("ClosedWorker", with_ceiling("open"));
  ASSERT_TRUE(says(worker, "ready"));
  {
    const OlderSlices others(64);
    EXPECT_TRUE(wait_until([&] { return crowded(worker.pid); }));
    for (int i = 0; i < 3; ++i) EXPECT_EQ(read_line(worker), "at work");
  }
  EXPECT_TRUE(wait_until([&] { return !crowded(worker.pid); })) << "there is room again";
  write_line(worker, "end");
  const Outcome outcome = finish(worker);
  EXPECT_TRUE(outcome.ok()) << outcome.output;
}

// ---- tables of a process -------------------------------------------------------------------

// What the agent says of this process: its level and why, and the tables that are full.
struct Said {
  uint32_t level;
  uint32_t reason;
  uint32_t tables;
};
Said said(OwnSlice& slice) {
  uint64_t word = 0;
  const uint32_t tables = core::load(slice.slot(&word).full_tables);
  for (const AllotGpuClient& client : slice->clients) {
    if (core::load(client.owner) != word) continue;
    return {core::load(client.level), core::load(client.reason), tables};
  }
  return {ALLOT_LEVEL_AUTO, ALLOT_REASON_NONE, tables};
}

Environment with_many_contexts(const char* fail) {
  return slice_environment(
      {.memory = "64G",
       .more = {{ALLOT_ENV_GPU_MAX, "30"}, {ALLOT_ENV_FAIL, fail}, {"ALLOT_SIM_CONTEXT", "16M"}}});
}

// A context on device 0 that is nobody's current one.
CUresult make_context(const Cuda& cuda, CUcontext* context) {
  using Pop = CUresult (*)(CUcontext*);
  const CUresult result = cuda.cuCtxCreate_v2(context, 0, 0);
  CUcontext popped = nullptr;
  if (result == CUDA_SUCCESS) {
    reinterpret_cast<Pop>(dlsym(cuda.library, "cuCtxPopCurrent_v2"))(&popped);
  }
  return result;
}

// The 65th context on a GPU has the 65th group, and its channels are the 513th to 520th.
CASE(TablesThe65thContext) {
  const Program program;
  OwnSlice slice;
  std::vector<CUcontext> contexts;
  while (contexts.size() < 63) {
    CUcontext context = nullptr;
    ASSERT_EQ(make_context(program.cuda, &context), CUDA_SUCCESS);
    contexts.push_back(context);
  }
  EXPECT_TRUE(wait_until([&] { return said(slice).level == ALLOT_LEVEL_CHANNEL; }));
  EXPECT_EQ(said(slice).tables, 0u);
  CUcontext last = nullptr;
  ASSERT_EQ(make_context(program.cuda, &last), CUDA_SUCCESS);
  EXPECT_TRUE(wait_until([&] {
    const Said now = said(slice);
    return now.level == ALLOT_LEVEL_LAUNCH && now.reason == ALLOT_REASON_TABLES &&
           now.tables == ALLOT_TABLE_CHANNELS;
  })) << "held at the gate";
  EXPECT_EQ(program.work(), CUDA_SUCCESS);
  EXPECT_EQ(program.cuda.cuCtxDestroy_v2(last), CUDA_SUCCESS);
  EXPECT_TRUE(wait_until([&] {
    const Said now = said(slice);
    return now.level == ALLOT_LEVEL_CHANNEL && now.reason == ALLOT_REASON_NONE && now.tables == 0;
  })) << "by its channels again";
}

TEST(Tables, The65thContextOnAGpuIsHeldAtTheGate) {
  const Outcome outcome = run_case("TablesThe65thContext", with_many_contexts("closed"));
  EXPECT_TRUE(outcome.ok()) << outcome.output;
}

CASE(TablesThe129thContext) {
  const Program program;
  OwnSlice slice;
  CUcontext context = nullptr;
  for (int i = 0; i < 127; ++i) {
    ASSERT_EQ(make_context(program.cuda, &context), CUDA_SUCCESS) << i;
  }
  EXPECT_EQ(core::load(slice.slot().full_tables) & ALLOT_TABLE_CONTEXTS, 0u);
  say("129th " + std::to_string(make_context(program.cuda, &context)));
  EXPECT_TRUE(wait_until(
      [&] { return (core::load(slice.slot().full_tables) & ALLOT_TABLE_CONTEXTS) != 0; }));
  say("work " + std::to_string(program.work()));
  if (case_arguments().at(0) != "later") return;
  __atomic_fetch_or(&slice->header.flags, ALLOT_SLICE_FAIL_CLOSED, __ATOMIC_SEQ_CST);
  EXPECT_TRUE(wait_until([&] { return program.work() == CUDA_ERROR_NOT_PERMITTED; }));
}

std::string contexts_case(const char* fail, const char* when = "now") {
  const Outcome outcome = run_case("TablesThe129thContext", with_many_contexts(fail), {when});
  EXPECT_TRUE(outcome.ok()) << outcome.output;
  return said_by_program(outcome.output);
}

TEST(Tables, The129thContextIsRefusedByASliceThatFailsClosed) {
  EXPECT_NE(contexts_case("closed").find("129th 800\n"), std::string::npos);
}

TEST(Tables, The129thContextRunsAndIsSaidToInASliceThatFailsOpen) {
  EXPECT_NE(contexts_case("open").find("129th 0\nwork 0\n"), std::string::npos);
}

TEST(Tables, AContextThatNobodyCanAskIsHeldByARuleThatComesLater) {
  contexts_case("open", "later");
}

// The driver cannot be asked about the 1025th stream: the markers behind its work tell, so a gate
// that waits for the end of all work does not wait for ever.
CASE(TablesThe1025thStream) {
  const Program program;
  OwnSlice slice;
  using Create = CUresult (*)(CUstream*, unsigned);
  const auto create = reinterpret_cast<Create>(dlsym(program.cuda.library, "cuStreamCreate"));
  CUstream stream = nullptr;
  for (int i = 0; i < 1024; ++i) ASSERT_EQ(create(&stream, 1), CUDA_SUCCESS);
  usleep(300'000);  // two of the agent's rounds
  EXPECT_EQ(core::load(slice.slot().full_tables), 0u);
  ASSERT_EQ(create(&stream, 1), CUDA_SUCCESS);
  EXPECT_TRUE(
      wait_until([&] { return core::load(slice.slot().full_tables) == ALLOT_TABLE_STREAMS; }));
  const auto begin = Clock::now();
  int steps = 0;
  for (; seconds_since(begin) < 1.5; ++steps) EXPECT_EQ(program.work(1 << 18), CUDA_SUCCESS);
  say("steps " + std::to_string(steps));
  EXPECT_GT(steps, 50);
}

TEST(Tables, The1025thStreamIsSaidAndItsProcessStillRuns) {
  for (const char* level : {"channel", "launch"}) {
    const Outcome outcome = run_case(
        "TablesThe1025thStream",
        slice_environment({.more = {{ALLOT_ENV_GPU_MAX, "30"}, {ALLOT_ENV_LEVEL, level}}}));
    EXPECT_TRUE(outcome.ok()) << level << outcome.output;
  }
}

}  // namespace
}  // namespace allot::shim_test
