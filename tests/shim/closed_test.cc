// `--fail closed` and `open` where the shim cannot enforce: no thread for the agent, and an agent
// that is lost while the program runs. The work is refused with a CUDA error and one line, or
// continues and a line says so; nothing stays stopped.
//
// A thread is lost here as it would be outside: by ptrace the agent's thread alone is stopped, or
// made to end.
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>

#include <atomic>
#include <cerrno>
#include <iostream>
#include <thread>

#include "abi/env.h"
#include "tests/shim/life.h"

#if !ALLOT_TEST_SANITIZED  // the sanitizers have a pthread_create of their own
namespace {

bool no_threads_for_guests = false;

}  // namespace

// Stands before libc's for the libraries as well: a system that gives the preloaded one no thread.
extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                              void* (*body)(void*), void* argument) noexcept {
  Dl_info caller = {};
  if (no_threads_for_guests && dladdr(__builtin_return_address(0), &caller) != 0 &&
      allot::shim_test::library_folder() + "/libcuda.so.1" == caller.dli_fname) {
    return EAGAIN;
  }
  using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const Create real = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
  return real(thread, attributes, body, argument);
}
#endif

namespace allot::shim_test {
namespace {

Environment limited(const char* fail) {
  return slice_environment({.more = {{ALLOT_ENV_GPU_MAX, "30"}, {ALLOT_ENV_FAIL, fail}}});
}

const AllotGpuClient* client_of(const shm::TimeView& view, pid_t pid) {
  for (const AllotGpuClient& client : view.clients) {
    if (client.owner != 0 && ALLOT_SLOT_PID(client.owner) == static_cast<uint32_t>(pid))
      return &client;
  }
  return nullptr;
}

bool client_says(pid_t pid, uint32_t level, uint32_t reason) {
  static shm::TimeView view;
  if (!shm::read_time_view(slice_file().c_str(), &view)) return false;
  const AllotGpuClient* client = client_of(view, pid);
  return client != nullptr && client->level == level && client->reason == reason;
}

#if !ALLOT_TEST_SANITIZED
CASE(ClosedStartsWithoutThreads) {
  no_threads_for_guests = true;
  const Cuda cuda;
  const CUresult init = cuda.cuInit(0);
  say("init " + std::to_string(init));
  CUcontext context = nullptr;
  CUdeviceptr block = 0;
  const CUresult retain = cuda.cuDevicePrimaryCtxRetain(&context, 0);
  say("context " + std::to_string(retain));
  if (retain != CUDA_SUCCESS) return;
  EXPECT_EQ(cuda.cuCtxSetCurrent(context), CUDA_SUCCESS);
  EXPECT_EQ(cuda.cuMemAlloc_v2(&block, kMiB), CUDA_SUCCESS);
  EXPECT_TRUE(client_says(getpid(), ALLOT_LEVEL_OBSERVE, ALLOT_REASON_NO_AGENT));
}

TEST(Closed, WithoutAThreadToHoldTimeTheProgramIsRefusedOrSaidToRunFree) {
  const Outcome closed = run_case("ClosedStartsWithoutThreads", limited("closed"));
  EXPECT_NE(closed.output.find("init 800\ncontext 800\n"), std::string::npos) << closed.output;
  EXPECT_EQ(lines_with(log_text(), "GPU work is refused"), 1u) << log_text();
  const Outcome open = run_case("ClosedStartsWithoutThreads", limited("open"));
  EXPECT_NE(open.output.find("init 0\ncontext 0\n"), std::string::npos) << open.output;
  EXPECT_TRUE(open.ok()) << open.output;
  // Nothing to hold: nothing to refuse.
  const Outcome free = run_case("ClosedStartsWithoutThreads",
                                slice_environment({.more = {{ALLOT_ENV_FAIL, "closed"}}}));
  EXPECT_NE(free.output.find("init 0\ncontext 0\n"), std::string::npos) << free.output;
}
#endif

// ---- a lost agent ----------------------------------------------------------------------------

// Works until it is refused or told to end; says the first error.
CASE(ClosedWorker) {
  Program program;
  say("ready");
  std::atomic<bool> end{false};
  std::thread listener([&] {
    std::string line;
    std::getline(std::cin, line);
    end.store(true);
  });
  CUresult result = CUDA_SUCCESS;
  uint64_t steps = 0;
  while (!end.load() && result == CUDA_SUCCESS) {
    result = program.work(4096);
    if (++steps % 200 == 0) say("at work");
    usleep(500);
  }
  say("ended with " + std::to_string(result));
  CUdeviceptr more = 0;
  EXPECT_EQ(program.cuda.cuMemAlloc_v2(&more, kMiB), CUDA_SUCCESS) << "memory is still held";
  EXPECT_EQ(program.cuda.cuMemFree_v2(more), CUDA_SUCCESS);
  listener.join();
  say("result afterwards " + std::to_string(program.work()));
}

// A thread of a child of ours, stopped alone.
class HeldThread {
 public:
  explicit HeldThread(pid_t tid) : tid_(tid) {
    if (tid == 0 || ptrace(PTRACE_SEIZE, tid, nullptr, nullptr) != 0) return;
    ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr);
    int status = 0;
    held_ = waitpid(tid, &status, __WALL) == tid && WIFSTOPPED(status);
  }
  explicit operator bool() const { return held_; }
  void detach() { ptrace(PTRACE_DETACH, tid_, nullptr, nullptr); }
  // It is in or after a system call: execute that instruction again, as exit of this thread alone.
  void end() {
    user_regs_struct regs = {};
    ASSERT_EQ(ptrace(PTRACE_GETREGS, tid_, nullptr, &regs), 0);
    const long code = ptrace(PTRACE_PEEKTEXT, tid_, regs.rip - 2, nullptr);
    ASSERT_EQ(code & 0xffff, 0x050f) << "no system call";
    regs.rip -= 2;
    regs.rax = SYS_exit;
    regs.orig_rax = static_cast<unsigned long long>(-1);
    regs.rdi = 0;
    ASSERT_EQ(ptrace(PTRACE_SETREGS, tid_, nullptr, &regs), 0);
    ptrace(PTRACE_DETACH, tid_, nullptr, nullptr);
  }

 private:
  pid_t tid_;
  bool held_ = false;
};

bool logs_once(const std::string& text) {
  return wait_until([&] { return lines_with(log_text(), text) == 1; });
}

Running worker_with_agent(const Environment& environment) {
  Running worker = start_case("ClosedWorker", environment);
  EXPECT_TRUE(says(worker, "ready"));
  EXPECT_TRUE(wait_until([&] { return thread_named(worker.pid, "allot-agent") != 0; }));
  return worker;
}

// Held. Where that is not allowed the worker is ended, and the test has to be skipped.
HeldThread agent_of(Running& worker) {
  HeldThread agent(thread_named(worker.pid, "allot-agent"));
  if (!agent) {
    kill(worker.pid, SIGKILL);
    finish(worker);
  }
  return agent;
}

// The program's own next line: allot says on stderr, which is the same pipe here, that it lost its
// thread.
std::string program_line(Running& worker) {
  std::string line = read_line(worker);
  while (line.starts_with("allot: ")) line = read_line(worker);
  return line;
}

TEST(Closed, WorkIsRefusedWhenTheAgentIsLost) {
  Running worker = worker_with_agent(limited("closed"));
  HeldThread agent = agent_of(worker);
  if (!agent) GTEST_SKIP() << "no permission to trace a child";
  agent.end();
  std::string line;
  const auto begin = Clock::now();
  while (line = program_line(worker), line == "at work" && seconds_since(begin) < 20) {
  }
  EXPECT_EQ(line, "ended with 800");
  EXPECT_TRUE(client_says(worker.pid, ALLOT_LEVEL_OBSERVE, ALLOT_REASON_NO_AGENT));
  // Said last of all: a program that ends at once may end before it.
  EXPECT_TRUE(logs_once("thread is lost; GPU work is refused"));
  write_line(worker, "end");
  const Outcome outcome = finish(worker);
  EXPECT_TRUE(outcome.ok()) << outcome.output;
  EXPECT_NE(outcome.output.find("result afterwards 800"), std::string::npos) << outcome.output;
  EXPECT_EQ(lines_with(log_text(), "thread is lost; GPU work is refused"), 1u) << log_text();
}

TEST(Closed, WorkGoesOnUnlimitedAndIsSaidToWhereTheSliceFailsOpen) {
  Running worker = worker_with_agent(limited("open"));
  HeldThread agent = agent_of(worker);
  if (!agent) GTEST_SKIP() << "no permission to trace a child";
  agent.end();
  EXPECT_TRUE(wait_until(
      [&] { return client_says(worker.pid, ALLOT_LEVEL_OBSERVE, ALLOT_REASON_NO_AGENT); }));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(program_line(worker), "at work");
  EXPECT_TRUE(logs_once("thread is lost; this process continues without limits"));
  write_line(worker, "end");
  const Outcome outcome = finish(worker);
  EXPECT_TRUE(outcome.ok()) << outcome.output;
  EXPECT_NE(outcome.output.find("result afterwards 0"), std::string::npos) << outcome.output;
  EXPECT_EQ(lines_with(log_text(), "thread is lost; this process continues without limits"), 1u)
      << log_text();
}

// Held for a while and released: everything resumes.
TEST(Closed, AnAgentThatGoesOnTakesItsWorkUpAgain) {
  Running worker = worker_with_agent(limited("open"));
  HeldThread agent = agent_of(worker);
  if (!agent) GTEST_SKIP() << "no permission to trace a child";
  EXPECT_TRUE(wait_until(
      [&] { return client_says(worker.pid, ALLOT_LEVEL_OBSERVE, ALLOT_REASON_NO_AGENT); }));
  agent.detach();
  EXPECT_TRUE(
      wait_until([&] { return client_says(worker.pid, ALLOT_LEVEL_CHANNEL, ALLOT_REASON_NONE); }));
  write_line(worker, "end");
  const Outcome outcome = finish(worker);
  EXPECT_TRUE(outcome.ok()) << outcome.output;
}

// Stopping the whole process is no loss, however long it lasts.
TEST(Closed, AStoppedProcessHasNotLostItsAgent) {
  Running worker = worker_with_agent(limited("closed"));
  kill(worker.pid, SIGSTOP);
  usleep(2'500'000);  // longer than an agent may be silent
  kill(worker.pid, SIGCONT);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(program_line(worker), "at work");
  write_line(worker, "end");
  const Outcome outcome = finish(worker);
  EXPECT_TRUE(outcome.ok()) << outcome.output;
  EXPECT_NE(outcome.output.find("result afterwards 0"), std::string::npos) << outcome.output;
}

}  // namespace
}  // namespace allot::shim_test
