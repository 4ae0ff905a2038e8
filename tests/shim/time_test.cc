// GPU time in whole processes on the software GPU: which level is in force, what a freeze holds,
// and that nothing stays stopped when a process ends, stops or loses a call.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

#include "abi/env.h"
#include "shm/time_view.h"
#include "tests/shim/harness.h"

namespace allot::shim_test {
namespace {

using Clock = std::chrono::steady_clock;

// The one slice of the machine's region, read again each time.
shm::TimeView slice_view() {
  shm::TimeView view = {};
  const std::string path = machine_folder() + "/region/default.slice";
  static_cast<void>(shm::read_time_view(path.c_str(), &view));
  return view;
}

const AllotGpuClient* client_of(const shm::TimeView& view, uint32_t pid) {
  for (const AllotGpuClient& client : view.clients) {
    if (client.owner != 0 && ALLOT_SLOT_PID(client.owner) == pid) return &client;
  }
  return nullptr;
}

bool level_is(AllotLevel level, AllotLevelReason reason) {
  const shm::TimeView view = slice_view();
  const AllotGpuClient* client = client_of(view, static_cast<uint32_t>(getpid()));
  return client != nullptr && client->level == level && client->reason == reason;
}

// The slice's file, for writing what `allot set` and `allot freeze` write.
class Writer {
 public:
  Writer() {
    auto slice = shm::open_slice((machine_folder() + "/region/default.slice").c_str(), true);
    if (slice) slice_ = *slice;
  }
  ~Writer() { shm::unmap(slice_); }
  explicit operator bool() const { return slice_.file != nullptr; }
  void freeze(bool on) {
    uint32_t& flags = slice_.file->header.flags;
    if (on) {
      __atomic_fetch_or(&flags, ALLOT_SLICE_FROZEN, __ATOMIC_SEQ_CST);
    } else {
      __atomic_fetch_and(&flags, ~ALLOT_SLICE_FROZEN, __ATOMIC_SEQ_CST);
    }
    shm::notify(slice_);
  }
  AllotSliceFile* file() { return slice_.file; }
  void notify() { shm::notify(slice_); }

 private:
  shm::Slice slice_;
};

// Sets device memory and waits for it: with few words, GPU work that takes next to no time.
CUresult some_work(const Cuda& cuda, CUdeviceptr block, size_t words = 16) {
  using Set = CUresult (*)(CUdeviceptr, unsigned, size_t);
  const auto set = reinterpret_cast<Set>(dlsym(cuda.library, "cuMemsetD32_v2"));
  const CUresult result = set(block, 7, words);
  return result != CUDA_SUCCESS ? result : cuda.cuCtxSynchronize();
}

struct Program {
  Cuda cuda;
  CUdeviceptr block = 0;
  Program() {
    start_cuda(cuda);
    EXPECT_EQ(cuda.cuMemAlloc_v2(&block, 1 << 20), CUDA_SUCCESS);
    EXPECT_EQ(some_work(cuda, block), CUDA_SUCCESS);
  }
  CUresult work() { return some_work(cuda, block); }
};

bool frozen_now() {
  const shm::TimeView view = slice_view();
  const AllotGpuClient* client = client_of(view, static_cast<uint32_t>(getpid()));
  return client != nullptr && (client->flags & ALLOT_CLIENT_FROZEN) != 0;
}

// Reads what a child prints up to that line.
bool says(Running& child, const std::string& wanted) {
  for (int i = 0; i < 20; ++i) {
    const std::string line = read_line(child);
    if (line == wanted) return true;
  }
  return false;
}

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// ---- levels ---------------------------------------------------------------------------------

SLICE_TEST(TimeChannelsAreFoundAndHeld) {
  Program program;
  EXPECT_TRUE(wait_until([] { return level_is(ALLOT_LEVEL_CHANNEL, ALLOT_REASON_NONE); }));
}

SLICE_TEST(TimeLevelAskedForIsTaken, .more = {{ALLOT_ENV_LEVEL, "launch"}}) {
  Program program;
  EXPECT_TRUE(wait_until([] { return level_is(ALLOT_LEVEL_LAUNCH, ALLOT_REASON_ASKED); }));
}

SLICE_TEST(TimeFallsBackWhereTimeslicesAreRefused,
           .more = {{ALLOT_ENV_SIM_FAULTS, "rm:SET_TIMESLICE:from=2:status=86"}}) {
  Program program;
  EXPECT_TRUE(wait_until([] { return level_is(ALLOT_LEVEL_LAUNCH, ALLOT_REASON_NO_TIMESLICE); }));
}

SLICE_TEST(TimeFallsBackWhereChannelsCannotBeStopped,
           .more = {{ALLOT_ENV_SIM_FAULTS, "rm:FIFO_DISABLE_CHANNELS:from=1:status=86"}}) {
  Program program;
  EXPECT_TRUE(wait_until([] { return level_is(ALLOT_LEVEL_LAUNCH, ALLOT_REASON_NO_DISABLE); }));
}

// The first call is the probe; the second, the freeze's, is refused: the gate takes over and the
// channels run.
SLICE_TEST(TimeACallRefusedLaterOpensEverythingAndFallsBack,
           .more = {{ALLOT_ENV_SIM_FAULTS, "rm:FIFO_DISABLE_CHANNELS:from=2:status=86"}}) {
  Program program;
  ASSERT_TRUE(wait_until([] { return level_is(ALLOT_LEVEL_CHANNEL, ALLOT_REASON_NONE); }));
  Writer writer;
  ASSERT_TRUE(writer);
  writer.freeze(true);
  EXPECT_TRUE(wait_until([] { return level_is(ALLOT_LEVEL_LAUNCH, ALLOT_REASON_CONTROL); }));
  EXPECT_TRUE(wait_until(frozen_now)) << "held by the gate now";
  writer.freeze(false);
  EXPECT_EQ(program.work(), CUDA_SUCCESS);
}

// ---- freeze ---------------------------------------------------------------------------------

// Whether work that a child of this test does while frozen waits for the thaw.
void freeze_holds_work() {
  Program program;
  Writer writer;
  ASSERT_TRUE(writer);
  writer.freeze(true);
  ASSERT_TRUE(wait_until(frozen_now));
  // Thaws from another process: this thread is going to wait for the GPU.
  const auto begin = Clock::now();
  const pid_t thawer = fork();
  if (thawer == 0) {
    usleep(300'000);
    writer.freeze(false);
    _exit(0);
  }
  EXPECT_EQ(program.work(), CUDA_SUCCESS);
  EXPECT_GE(seconds_since(begin), 0.25);
  waitpid(thawer, nullptr, 0);
  EXPECT_TRUE(wait_until([] { return !frozen_now(); }));
  EXPECT_EQ(program.work(), CUDA_SUCCESS);
}

SLICE_TEST(TimeAFreezeHoldsWorkUntilTheThaw) {
  freeze_holds_work();
}

SLICE_TEST(TimeAFreezeHoldsWorkAtTheGate, .more = {{ALLOT_ENV_LEVEL, "launch"}}) {
  freeze_holds_work();
}

// A thread that never stops submitting stands at the gate then, and the freeze is complete all the
// same.
void freeze_of_a_busy_program_is_seen() {
  Program program;
  Writer writer;
  ASSERT_TRUE(writer);
  std::atomic<bool> end{false};
  std::thread busy([&] {
    CUcontext context = nullptr;
    ASSERT_EQ(program.cuda.cuDevicePrimaryCtxRetain(&context, 0), CUDA_SUCCESS);
    ASSERT_EQ(program.cuda.cuCtxSetCurrent(context), CUDA_SUCCESS);
    while (!end.load()) ASSERT_EQ(program.work(), CUDA_SUCCESS);
  });
  for (int i = 0; i < 5; ++i) {
    writer.freeze(true);
    EXPECT_TRUE(wait_until(frozen_now)) << i;
    writer.freeze(false);
    EXPECT_TRUE(wait_until([] { return !frozen_now(); })) << i;
  }
  end.store(true);
  busy.join();
}

SLICE_TEST(TimeAFreezeOfABusyProgramIsSeen) {
  freeze_of_a_busy_program_is_seen();
}

SLICE_TEST(TimeAFreezeOfABusyProgramIsSeenAtTheGate, .more = {{ALLOT_ENV_LEVEL, "launch"}}) {
  freeze_of_a_busy_program_is_seen();
}

SLICE_TEST(TimeAContextMadeWhileFrozenIsFrozen) {
  Program program;
  Writer writer;
  ASSERT_TRUE(writer);
  writer.freeze(true);
  ASSERT_TRUE(wait_until(frozen_now));
  CUcontext second = nullptr;
  ASSERT_EQ(program.cuda.cuCtxCreate_v2(&second, 0, 0), CUDA_SUCCESS);
  const auto begin = Clock::now();
  const pid_t thawer = fork();
  if (thawer == 0) {
    usleep(400'000);
    writer.freeze(false);
    _exit(0);
  }
  usleep(100'000);  // gives the agent time for the new channels; no result is waited for
  EXPECT_EQ(program.work(), CUDA_SUCCESS);
  EXPECT_GE(seconds_since(begin), 0.3);
  waitpid(thawer, nullptr, 0);
  EXPECT_EQ(program.cuda.cuCtxDestroy_v2(second), CUDA_SUCCESS);
}

SLICE_TEST(TimeAProcessWithoutWorkIsFrozenAtOnce) {
  Program program;
  Writer writer;
  ASSERT_TRUE(writer);
  for (int i = 0; i < 20; ++i) {
    writer.freeze(true);
    ASSERT_TRUE(wait_until(frozen_now)) << i;
    writer.freeze(true);
    writer.freeze(false);
    ASSERT_TRUE(wait_until([] { return !frozen_now(); })) << i;
  }
}

// ---- ends -----------------------------------------------------------------------------------

// A process that waits for frozen work; how it ends is the argument.
CASE(TimeFrozenProcess) {
  Program program;
  Writer writer;
  if (!writer) _exit(90);
  writer.freeze(true);
  if (!wait_until(frozen_now)) _exit(91);
  std::printf("frozen\n");
  std::fflush(stdout);
  const std::string how = case_arguments().empty() ? "" : case_arguments()[0];
  if (how == "abort") {
    signal(SIGABRT, SIG_DFL);
    std::abort();
  }
  if (how == "exit") _exit(7);
  if (how == "throw") {
    std::set_terminate([] { _exit(8); });
    throw 1;
  }
  program.work();  // until killed
}

void ends_within_bound(const char* how, int kill_with) {
  Running child = start_case("TimeFrozenProcess", slice_environment({}), {how});
  ASSERT_TRUE(says(child, "frozen"));
  const auto begin = Clock::now();
  if (kill_with != 0) kill(child.pid, kill_with);
  finish(child);
  EXPECT_LT(seconds_since(begin), 5.0) << how;
}

TEST(TimeEnds, AFrozenProcessThatIsKilledDiesAtOnce) {
  ends_within_bound("wait", SIGKILL);
  ends_within_bound("wait", SIGTERM);
}

TEST(TimeEnds, AFrozenProcessThatExitsOrAbortsIsGone) {
  ends_within_bound("exit", 0);
  ends_within_bound("abort", 0);
  ends_within_bound("throw", 0);
}

// Stopped and continued: the agent resumes where it was.
CASE(TimeWorker) {
  Program program;
  std::printf("ready\n");
  std::fflush(stdout);
  while (program.work() == CUDA_SUCCESS) usleep(1000);
}

TEST(TimeEnds, AStoppedProcessGoesOnWhenContinued) {
  Running child = start_case("TimeWorker", slice_environment({}));
  ASSERT_TRUE(says(child, "ready"));
  const auto used = [&] {
    const shm::TimeView view = slice_view();
    const AllotGpuClient* client = client_of(view, static_cast<uint32_t>(child.pid));
    return client == nullptr ? uint64_t{0} : client->heartbeat_ns;
  };
  ASSERT_TRUE(wait_until([&] { return used() != 0; }));
  kill(child.pid, SIGSTOP);
  usleep(50'000);
  const uint64_t stopped = used();
  kill(child.pid, SIGCONT);
  EXPECT_TRUE(wait_until([&] { return used() > stopped; }));
  kill(child.pid, SIGKILL);
  finish(child);
}

// A child of fork has no agent and touches nothing of its parent's.
SLICE_TEST(TimeAForkedChildLeavesTheParentsClientAlone) {
  Program program;
  const pid_t child = fork();
  if (child == 0)
    _exit(client_of(slice_view(), static_cast<uint32_t>(getpid())) == nullptr ? 0 : 1);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(program.work(), CUDA_SUCCESS);
}

// ---- used time ------------------------------------------------------------------------------

SLICE_TEST(TimeUsedIsZeroWithoutWorkAndGrowsWithIt) {
  Program program;
  ASSERT_TRUE(wait_until([] { return level_is(ALLOT_LEVEL_CHANNEL, ALLOT_REASON_NONE); }));
  ASSERT_TRUE(wait_until([] {
    const shm::TimeView view = slice_view();
    const AllotGpuClient* client = client_of(view, static_cast<uint32_t>(getpid()));
    return client != nullptr && (client->flags & ALLOT_CLIENT_ACTIVE) == 0;
  }));
  const uint64_t idle = slice_view().gpus[0].time_used_ns;
  const auto begin = Clock::now();
  while (seconds_since(begin) < 0.2) {
    if (!frozen_now()) continue;
  }
  EXPECT_LT(slice_view().gpus[0].time_used_ns - idle, 20'000'000u);
  CUdeviceptr large = 0;
  ASSERT_EQ(program.cuda.cuMemAlloc_v2(&large, 512 * kMiB), CUDA_SUCCESS);
  const auto busy = Clock::now();
  while (seconds_since(busy) < 10 && slice_view().gpus[0].time_used_ns - idle < 1'000'000) {
    EXPECT_EQ(some_work(program.cuda, large, 128 * kMiB), CUDA_SUCCESS);
  }
  EXPECT_GE(slice_view().gpus[0].time_used_ns - idle, 1'000'000u);
}

}  // namespace
}  // namespace allot::shim_test
