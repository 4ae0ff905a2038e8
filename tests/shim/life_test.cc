// How processes of a slice live and die: they fork, start others, become daemons, end with threads
// at work, crash with handlers, are stopped, and lose their region. Others keep running, nothing is
// lost, nobody is stuck.
//
// Death at any instant is stress_test.cc's; src/shm tests what the files themselves withstand.
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <iostream>
#include <thread>

#include "abi/env.h"
#include "tests/shim/life.h"

extern char** environ;

namespace allot::shim_test {
namespace {

// Threads that allocate, free and submit until told to end.
class Crowd {
 public:
  explicit Crowd(const Program& program, int count = 4) {
    for (int i = 0; i < count; ++i) threads_.emplace_back([&program, this] { work(program); });
  }
  ~Crowd() {
    end_.store(true);
    for (auto& thread : threads_) thread.join();
  }
  void detach() {
    for (auto& thread : threads_) thread.detach();
    threads_.clear();
  }
  uint64_t steps() const { return steps_.load(); }

 private:
  void work(const Program& program) {
    join_context(program.cuda);
    while (!end_.load()) {
      CUdeviceptr block = 0;
      if (program.cuda.cuMemAlloc_v2(&block, 3 * kMiB) == CUDA_SUCCESS) {
        program.set(block, 1, 64);
        program.cuda.cuMemFree_v2(block);
      }
      steps_.fetch_add(1);
    }
  }
  std::atomic<bool> end_{false};
  std::atomic<uint64_t> steps_{0};
  std::vector<std::thread> threads_;
};

// Waits for a child at most 10 s; its status, or -1 when it had to be killed.
int status_within_bound(pid_t pid) {
  int status = -1;
  if (wait_until([&] { return waitpid(pid, &status, WNOHANG) == pid; })) return status;
  kill(pid, SIGKILL);
  waitpid(pid, &status, 0);
  return -1;
}

// ---- children -------------------------------------------------------------------------------

#if !ALLOT_TEST_SANITIZED  // their allocators may hang in such a child themselves
SLICE_TEST(LifeForkOfAThreadedProgramAtWorkHangsNobody) {
  Program program;
  const uint64_t before = ledger_used();
  {
    Crowd crowd(program);
    for (int i = 0; i < 20; ++i) {
      const pid_t pid = fork();
      if (pid == 0) {
        free(malloc(1000));
        CUdeviceptr block = 0;
        program.cuda.cuMemAlloc_v2(&block, kMiB);  // the driver refuses it here
        program.cuda.cuMemFree_v2(program.block);
        program.work();
        _exit(5);
      }
      const int status = status_within_bound(pid);
      ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 5) << i << ": " << status;
    }
    const uint64_t steps = crowd.steps();
    EXPECT_TRUE(wait_until([&] { return crowd.steps() > steps + 4; }));
  }
  EXPECT_EQ(ledger_used(), before);
}

SLICE_TEST(LifeVforkAndSpawnLeaveTheParentsAccount) {
  Program program;
  const uint64_t before = ledger_used();
  {
    Crowd crowd(program);
    char name[] = "/bin/true";
    char* argv[] = {name, nullptr};
    for (int i = 0; i < 20; ++i) {
      pid_t pid = 0;
      if (i % 2 == 0) {
        ASSERT_EQ(posix_spawn(&pid, name, nullptr, nullptr, argv, environ), 0);
      } else {
        pid = vfork();
        if (pid == 0) {
          execv(name, argv);
          _exit(99);
        }
      }
      EXPECT_EQ(status_within_bound(pid), 0);
    }
  }
  EXPECT_EQ(ledger_used(), before);
  EXPECT_EQ(program.work(), CUDA_SUCCESS);
}
#endif

// The image is another, the pid the same: the slot is free once somebody looks.
CASE(LifeBecomesCat) {
  Program program;
  CUdeviceptr block = 0;
  if (program.cuda.cuMemAlloc_v2(&block, kGiB) != CUDA_SUCCESS) _exit(90);
  say("holding");
  execl("/bin/cat", "cat", nullptr);
  _exit(91);
}

TEST(Life, AProgramThatExecsAnotherGivesItsMemoryBack) {
  Running child = start_case("LifeBecomesCat", slice_environment({}));
  ASSERT_TRUE(says(child, "holding"));
  write_line(child, "meow");
  EXPECT_EQ(read_line(child), "meow");
  EXPECT_TRUE(wait_until([] { return used_by_the_living() == 0; }));
  EXPECT_TRUE(finish(child).ok());
}

// Twice forked, in a session of its own, with no descriptor left, and its parent gone before it
// begins.
CASE(LifeDaemon) {
  const std::string out = machine_folder() + "/daemon";
  if (fork() != 0) _exit(0);
  setsid();
  if (fork() != 0) _exit(0);
  while (getppid() == 0) usleep(1000);
  for (int fd = 0; fd < 256; ++fd) close(fd);
  open("/dev/null", O_RDWR);
  const Cuda cuda;
  CUcontext context = nullptr;
  CUdeviceptr block = 0;
  const bool good = cuda.cuInit(0) == CUDA_SUCCESS &&
                    cuda.cuDevicePrimaryCtxRetain(&context, 0) == CUDA_SUCCESS &&
                    cuda.cuCtxSetCurrent(context) == CUDA_SUCCESS &&
                    cuda.cuMemAlloc_v2(&block, kGiB) == CUDA_SUCCESS &&
                    cuda.cuMemAlloc_v2(&block, 2 * kGiB) == CUDA_ERROR_OUT_OF_MEMORY &&
                    ledger_charged(ALLOT_KIND_LINEAR) == kGiB;
  std::ofstream(out + ".part") << (good ? "good" : "bad");
  std::filesystem::rename(out + ".part", out);
  _exit(0);
}

TEST(Life, ADaemonIsAProcessOfTheSliceByItself) {
  const Environment environment = slice_environment({.memory = "2G"});
  EXPECT_TRUE(run_case("LifeDaemon", environment).ok());
  const std::string out = machine_folder() + "/daemon";
  ASSERT_TRUE(wait_until([&] { return std::filesystem::exists(out); }));
  EXPECT_EQ(text_of(out), "good");
  EXPECT_TRUE(wait_until([] { return used_by_the_living() == 0; }));
}

// ---- ends -----------------------------------------------------------------------------------

CASE(LifeEndsWithThreadsAtWork) {
  static Program program;
  static Crowd crowd(program, 6);
  crowd.detach();
  if (!wait_until([] { return crowd.steps() > 20; })) _exit(90);
  const std::string how = case_arguments().at(0);
  if (how == "exit") std::exit(0);
  if (how == "_exit") _exit(0);
  if (how == "quick_exit") std::quick_exit(0);
  if (how == "main thread") pthread_exit(nullptr);
}

TEST(Life, AProgramMayEndWithThreadsInTheDriver) {
  for (const char* how : {"exit", "_exit", "quick_exit"}) {
    for (int round = 0; round < 3; ++round) {
      Running child = start_case("LifeEndsWithThreadsAtWork", slice_environment({}), {how});
      close(child.in);
      EXPECT_EQ(status_within_bound(child.pid), 0) << how;
      close(child.out);
      EXPECT_EQ(used_by_the_living(), 0u) << how;
    }
  }
}

SLICE_TEST(LifeThreadsThatEndLeaveNothing) {
  Program program;
  const uint64_t before = ledger_used();
  for (int i = 0; i < 50; ++i) {
    std::thread([&] {
      join_context(program.cuda);
      CUdeviceptr block = 0;
      EXPECT_EQ(program.cuda.cuMemAlloc_v2(&block, 3 * kMiB), CUDA_SUCCESS);
      EXPECT_EQ(program.cuda.cuMemFree_v2(block), CUDA_SUCCESS);
    }).join();
  }
  EXPECT_EQ(ledger_used(), before);
}

SLICE_TEST(LifeClosingLibcudaAndOpeningItAgainKeepsTheAccount) {
  Program program;
  CUdeviceptr block = 0;
  ASSERT_EQ(program.cuda.cuMemAlloc_v2(&block, 10 * kMiB), CUDA_SUCCESS);
  const uint64_t charged = ledger_charged(ALLOT_KIND_LINEAR);
  for (int i = 0; i < 5; ++i) dlclose(program.cuda.library);
  EXPECT_EQ(program.work(), CUDA_SUCCESS) << "addresses that a program has kept";
  const Cuda again;
  ASSERT_NE(again.library, nullptr);
  CUdeviceptr more = 0;
  ASSERT_EQ(again.cuMemAlloc_v2(&more, 10 * kMiB), CUDA_SUCCESS);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_LINEAR), charged + 10 * kMiB);
  EXPECT_EQ(again.cuMemFree_v2(more), CUDA_SUCCESS);
  EXPECT_EQ(again.cuMemFree_v2(block), CUDA_SUCCESS);
}

// ---- crash handlers -------------------------------------------------------------------------

#if !ALLOT_TEST_SANITIZED  // they have the handler
volatile uintptr_t nowhere = 8;
void fault() {
  *reinterpret_cast<volatile int*>(nowhere) = 1;
}

sigjmp_buf back;
void go_on(int) {
  siglongjmp(back, 1);
}

SLICE_TEST(LifeAProgramThatSurvivesItsCrashesGoesOn) {
  Program program;
  Crowd crowd(program, 2);
  struct sigaction action = {};
  action.sa_handler = go_on;
  ASSERT_EQ(sigaction(SIGSEGV, &action, nullptr), 0);
  static volatile int faults = 0;
  static volatile int survived = 0;
  if (sigsetjmp(back, 1) != 0) survived = survived + 1;
  EXPECT_EQ(program.work(), CUDA_SUCCESS);
  if (faults < 20) {
    faults = faults + 1;
    fault();
  }
  EXPECT_EQ(survived, 20);
}

// As crash reporters do: a child that looks at the process, then the signal once more. From a
// thread of the program, and while the slice's work is frozen.
void report_and_die(int number) {
  const pid_t pid = fork();
  if (pid == 0) {
    execl("/bin/sh", "sh", "-c", "cat /proc/$PPID/maps /proc/$PPID/status >/dev/null", nullptr);
    _exit(99);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) _exit(92);
  signal(number, SIG_DFL);
  raise(number);
}

CASE(LifeCrashes) {
  Program program;
  struct sigaction action = {};
  action.sa_handler = report_and_die;
  sigaction(SIGSEGV, &action, nullptr);
  if (case_arguments().at(0) == "frozen") {
    auto slice = shm::open_slice(slice_file().c_str(), true);
    if (!slice) _exit(90);
    __atomic_fetch_or(&slice->file->header.flags, ALLOT_SLICE_FROZEN, __ATOMIC_SEQ_CST);
    shm::notify(*slice);
    std::thread([&] { program.work(); }).detach();
    usleep(50'000);
  }
  std::thread(fault).join();
}

TEST(Life, ACrashReporterSeesTheProcessAndItDiesByItsSignal) {
  for (const char* how : {"plain", "frozen"}) {
    Running child = start_case("LifeCrashes", slice_environment({}), {how});
    close(child.in);
    const int status = status_within_bound(child.pid);
    close(child.out);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) << how << ": " << status;
    EXPECT_TRUE(wait_until([] { return used_by_the_living() == 0; })) << how;
  }
}
#endif

// ---- stopped --------------------------------------------------------------------------------

// Works in steps and says, when asked, how long the longest since the last question took, the one
// under way too, in microseconds.
CASE(LifeMetered) {
  Program program;
  static std::atomic<uint64_t> longest{0};
  static std::atomic<Clock::time_point> begin{Clock::now()};
  const auto since_begin = [] { return static_cast<uint64_t>(seconds_since(begin.load()) * 1e6); };
  std::thread worker([&] {
    join_context(program.cuda);
    for (;;) {
      begin.store(Clock::now());
      CUdeviceptr block = 0;
      if (program.cuda.cuMemAlloc_v2(&block, 3 * kMiB) != CUDA_SUCCESS) _exit(91);
      if (program.work(1024) != CUDA_SUCCESS) _exit(92);
      if (program.cuda.cuMemFree_v2(block) != CUDA_SUCCESS) _exit(93);
      const uint64_t took = since_begin();
      if (took > longest.load()) longest.store(took);
    }
  });
  say("ready");
  std::string line;
  while (std::getline(std::cin, line)) {
    say(std::to_string(std::max(longest.exchange(0), since_begin())));
  }
  _exit(0);
}

double longest_ms(Running& metered) {
  write_line(metered, "?");
  return std::stod(read_line(metered)) / 1000;
}

double median(std::vector<double> all) {
  std::sort(all.begin(), all.end());
  return all[all.size() / 2];
}

// What a machine lets a sleeper oversleep meanwhile is not ours: taken off, and of several rounds
// the middle one counts.
struct Phase {
  double wait_ms;
};
Phase measure(Running& metered, int ms) {
  double noise = 0;
  longest_ms(metered);
  const auto end = Clock::now() + std::chrono::milliseconds(ms);
  while (Clock::now() < end) {
    const auto begin = Clock::now();
    usleep(1000);
    noise = std::max(noise, seconds_since(begin) * 1e3 - 1.0);
  }
  return {std::max(0.0, longest_ms(metered) - noise)};
}

// Two slices with half of the GPU each (a holder of windows), or two processes of one (a stop in
// the middle of an update of the account): one is stopped at a random instant, the other works on.
void a_stop_holds_up_nobody(bool own_slices) {
  const auto environment = [&](const char* name) {
    Environment made = slice_environment({.more = {{"ALLOT_SIM_CONTEXT", "16M"}}});
    made["ALLOT_NAME"] = own_slices ? name : "a";
    if (own_slices) made[ALLOT_ENV_GPU_SHARE] = "50";
    return made;
  };
  Running stopped = start_case("LifeMetered", environment("a"));
  ASSERT_TRUE(says(stopped, "ready"));
  Running metered = start_case("LifeMetered", environment("b"));
  ASSERT_TRUE(says(metered, "ready"));
  measure(metered, 700);  // until windows are kept
  std::vector<double> quiet, stop;
  for (int round = 0; round < 9; ++round) {
    quiet.push_back(measure(metered, 60).wait_ms);
    usleep(static_cast<useconds_t>(rand() % 5000));
    kill(stopped.pid, SIGSTOP);
    stop.push_back(measure(metered, 150).wait_ms);
    kill(stopped.pid, SIGCONT);
  }
  // On a quiet machine less than 10 ms more; here so much that a busy one passes, and waiting for
  // the stopped one, or until it counts as gone (0.5 s), does not.
  EXPECT_LE(median(stop), median(quiet) + 60) << "ms";
  std::printf("longest step beside a running one %.2f ms, beside a stopped one %.2f ms\n",
              median(quiet), median(stop));
  for (Running* child : {&stopped, &metered}) {
    kill(child->pid, SIGKILL);
    finish(*child);
  }
  EXPECT_EQ(used_by_the_living("a"), 0u);
}

TEST(Life, AStoppedHolderOfAWindowHoldsUpNobody) {
  a_stop_holds_up_nobody(true);
}

TEST(Life, AProcessStoppedInTheMiddleOfAnUpdateHoldsUpNobody) {
  a_stop_holds_up_nobody(false);
}

// ---- a full process table, a region that goes -----------------------------------------------

CASE(LifeInitResult) {
  const Cuda cuda;
  say("init " + std::to_string(cuda.cuInit(0)));
}

// The call is carried out, and the thread ends after it.
CASE(LifeCancelled) {
  const Program program;
  const uint64_t before = ledger_used();
  static std::atomic<int> stage;
  struct Work {
    static void* allocate(void* of) {
      const Program& at = *static_cast<const Program*>(of);
      join_context(at.cuda);
      static CUdeviceptr mine;
      pthread_cleanup_push(
          [](void* cuda) {
            stage.store(2);
            static_cast<const Cuda*>(cuda)->cuMemFree_v2(mine);
          },
          const_cast<Cuda*>(&at.cuda));
      stage.store(1);
      at.cuda.cuMemAlloc_v2(&mine, 64 * kMiB);
      pthread_testcancel();
      pthread_cleanup_pop(0);
      return nullptr;
    }
  };
  pthread_t thread;
  ASSERT_EQ(pthread_create(&thread, nullptr, Work::allocate, const_cast<Program*>(&program)), 0);
  ASSERT_TRUE(wait_until([&] { return ledger_used() > before; }));  // it is in the driver
  ASSERT_EQ(pthread_cancel(thread), 0);
  void* result = nullptr;
  ASSERT_EQ(pthread_join(thread, &result), 0);
  EXPECT_EQ(result, PTHREAD_CANCELED);
  EXPECT_EQ(stage.load(), 2);
  EXPECT_EQ(ledger_used(), before);
  std::cout << "released " << std::boolalpha << (ledger_used() == before) << std::endl;
}

TEST(Life, AThreadThatIsCancelledInACallLeavesNothingBehind) {
  const Outcome outcome = run_case(
      "LifeCancelled",
      slice_environment({.more = {{ALLOT_ENV_SIM_FAULTS, "cuMemAlloc_v2:nth=2:delay_us=300000"}}}));
  EXPECT_TRUE(outcome.ok()) << outcome.output;
  EXPECT_NE(outcome.output.find("released true"), std::string::npos) << outcome.output;
}

TEST(Life, AFullProcessTableIsOneClearLineAndNothingIsLost) {
  Running holder = start_case("LifeMetered", slice_environment({}));
  ASSERT_TRUE(says(holder, "ready"));
  auto slice = shm::open_slice(slice_file().c_str(), true);
  ASSERT_TRUE(slice);
  AllotSliceFile& file = *slice->file;
  std::vector<uint32_t> filled;
  for (uint32_t i = 0; i < ALLOT_MAX_SLOTS; ++i) {  // taken, by somebody who lives
    if (file.slot_words[i] != 0) continue;
    file.slot_words[i] = ALLOT_SLOT_WORD(ALLOT_SLOT_TAKING, 1, static_cast<uint32_t>(getpid()));
    filled.push_back(i);
  }
  const uint32_t high = file.header.slots_high;
  file.header.slots_high = ALLOT_MAX_SLOTS;
  for (const char* fail : {"closed", "open"}) {
    const Outcome outcome =
        run_case("LifeInitResult", slice_environment({.more = {{ALLOT_ENV_FAIL, fail}}}));
    EXPECT_NE(outcome.output.find(std::string(fail) == "closed" ? "init 800" : "init 0"),
              std::string::npos)
        << outcome.output;
  }
  const std::string log = log_text();
  EXPECT_EQ(lines_with(log, "4096 processes"), 2u) << log;
  EXPECT_EQ(lines_with(log, "\n"), 2u) << log;
  for (const uint32_t i : filled) file.slot_words[i] = 0;
  file.header.slots_high = high;
  shm::unmap(*slice);
  longest_ms(holder);  // works on
  EXPECT_TRUE(run_case("LifeInitResult", slice_environment({})).ok());
  write_line(holder, "?");
  EXPECT_NE(read_line(holder), "");
  kill(holder.pid, SIGKILL);
  finish(holder);
  EXPECT_EQ(used_by_the_living(), 0u);
}

TEST(Life, AProgramWhoseRegionIsDeletedWorksOnWithinItsLimit) {
  Running child = start_case("LifeMetered", slice_environment({.memory = "2G"}));
  ASSERT_TRUE(says(child, "ready"));
  std::filesystem::remove(slice_file());
  longest_ms(child);
  EXPECT_TRUE(wait_until([&] { return longest_ms(child) > 0; }));
  // Who comes now makes the slice anew; the one of before does not count there.
  EXPECT_NE(run_case("LifeInitResult", slice_environment({.memory = "2G"})).output.find("init 0"),
            std::string::npos);
  kill(child.pid, SIGKILL);
  finish(child);
}

TEST(Life, ARegionThatIsCutShortHurtsOnlyItsOwnSlice) {
  Environment a = slice_environment({}), b = slice_environment({});
  a["ALLOT_NAME"] = "a";
  b["ALLOT_NAME"] = "b";
  Running cut = start_case("LifeMetered", a);
  ASSERT_TRUE(says(cut, "ready"));
  Running other = start_case("LifeMetered", b);
  ASSERT_TRUE(says(other, "ready"));
  ASSERT_EQ(truncate(slice_file("a").c_str(), 4096), 0);
  measure(other, 200);
  EXPECT_TRUE(wait_until([&] { return longest_ms(other) > 0; })) << "works on";
  kill(cut.pid, SIGKILL);
  finish(cut);
  EXPECT_NE(run_case("LifeInitResult", a).output.find("init 0"), std::string::npos)
      << "the damaged file is replaced: " << log_text();
  kill(other.pid, SIGKILL);
  finish(other);
}

}  // namespace
}  // namespace allot::shim_test
