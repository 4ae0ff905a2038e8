// Guest manners: what a process notices of the libraries in it, and what its children inherit.
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <thread>

#include "tests/shim/harness.h"

extern char** environ;

namespace allot::shim_test {
namespace {

namespace fs = std::filesystem;

[[maybe_unused]] bool installed(const char* program) {
  return run_program({"sh", "-c", std::string("command -v ") + program + " >/dev/null"}, {}).ok();
}

// Runs a command with and without the libraries; same output, same status, and no trace of a slice.
[[maybe_unused]] void expect_untouched(const std::vector<std::string>& command) {
  const Outcome without = run_program(command, {});
  Environment environment = slice_environment({});
  environment.erase("LD_LIBRARY_PATH");
  const Outcome with = run_program(command, environment);
  EXPECT_EQ(with.status, without.status) << command[0];
  EXPECT_EQ(with.output, without.output) << command[0];
  EXPECT_TRUE(fs::is_empty(machine_folder() + "/region"))
      << command[0] << " left a file in the region";
  EXPECT_FALSE(fs::exists(machine_folder() + "/log")) << command[0] << " made a message";
}

#if !ALLOT_TEST_SANITIZED  // programs that are not built with the sanitizer
TEST(Untouched, Shell) {
  expect_untouched(
      {"bash", "-c",
       "umask; trap; echo $$ >/dev/null; (exit 3); echo $?; ls /proc/self/task | wc -l; "
       "echo a | cat | tr a b; sh -c 'kill -TERM $$'; echo $?; ulimit -n; "
       "ls -l /proc/self/fd | wc -l"});
}

TEST(Untouched, Python) {
  if (!installed("python3")) GTEST_SKIP() << "no python3";
  expect_untouched(
      {"python3", "-c",
       "import signal, os, threading, subprocess, locale, ctypes\n"
       "print([signal.getsignal(s) for s in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)])\n"
       "print(oct(os.umask(0o22)), threading.active_count(), len(os.listdir('/proc/self/task')))\n"
       "print(os.sched_getaffinity(0), locale.setlocale(locale.LC_ALL))\n"
       "print(subprocess.run(['sh', '-c', 'exit 5']).returncode)\n"
       "print(sorted(os.listdir('/proc/self/fd')))\n"
       "print(ctypes.CDLL(None).getpid() == os.getpid())\n"});
}

TEST(Untouched, Curl) {
  if (!installed("curl")) GTEST_SKIP() << "no curl";
  expect_untouched({"curl", "--version"});
  expect_untouched({"curl", "-s", "file:///etc/passwd"});
}

TEST(Untouched, Java) {
  if (!installed("java")) GTEST_SKIP() << "no java";
  expect_untouched({"java", "-version"});
}
#endif

// Acceptance test 9: umask, the two signals, RTLD_NEXT; dlsym of a name that begins with "cu".
SLICE_TEST(NothingHappensBeforeCuInit) {
  EXPECT_EQ(umask(022), 022u);
  for (const int number : {SIGUSR1, SIGUSR2, SIGTERM, SIGSEGV}) {
    struct sigaction action = {};
    ASSERT_EQ(sigaction(number, nullptr, &action), 0);
    if (number == SIGSEGV && ALLOT_TEST_SANITIZED) continue;
    EXPECT_EQ(action.sa_handler, SIG_DFL) << number;
  }
  void* first = dlsym(RTLD_NEXT, "fopen");
  EXPECT_NE(first, nullptr);
  EXPECT_EQ(dlsym(RTLD_NEXT, "fopen"), first);
  EXPECT_EQ(dlsym(RTLD_DEFAULT, "curl_easy_init"), nullptr);
  const Cuda cuda;
  EXPECT_NE(dlsym(cuda.library, "cuMemAlloc_v2"), nullptr);
  size_t tasks = 0;
  for ([[maybe_unused]] const auto& task : fs::directory_iterator("/proc/self/task")) ++tasks;
  EXPECT_LE(tasks, 1u + ALLOT_TEST_SANITIZED);
  EXPECT_TRUE(fs::is_empty(machine_folder() + "/region"));
  EXPECT_TRUE(fs::is_empty(machine_folder() + "/sim"));
}

CASE(AllocatesTwentyGiB) {
  const Cuda cuda;
  start_cuda(cuda);
  CUdeviceptr block = 0;
  EXPECT_EQ(cuda.cuMemAlloc_v2(&block, 20 * kGiB), CUDA_SUCCESS);
  EXPECT_TRUE(fs::is_empty(machine_folder() + "/region"));
}

TEST(Shim, OutsideASliceOnlyForwards) {
  const Outcome outside = run_case("AllocatesTwentyGiB", slice_environment({.memory = ""}));
  EXPECT_TRUE(outside.ok()) << outside.output;
  const Outcome disabled =
      run_case("AllocatesTwentyGiB", slice_environment({.more = {{"ALLOT_DISABLE", "1"}}}));
  EXPECT_TRUE(disabled.ok()) << disabled.output;
}

// What a program started from a slice sees as the card's size: exit status in GiB.
CASE(ExitsWithTotalGiB) {
  const Cuda cuda;
  size_t total = 0;
  if (cuda.cuInit(0) != CUDA_SUCCESS || cuda.cuDeviceTotalMem_v2(&total, 0) != CUDA_SUCCESS)
    _exit(99);
  _exit(static_cast<int>(total / kGiB));
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> all;
  for (std::string& word : words) all.push_back(word.data());
  all.push_back(nullptr);
  return all;
}

// Forks, calls start(argv) there, and returns what the program started ended with.
template <class Start>
int status_of_child(Start start) {
  std::vector<std::string> words = case_command("ExitsWithTotalGiB");
  const std::vector<char*> argv = pointers(words);
  const pid_t pid = fork();
  if (pid == 0) {
    start(argv);
    _exit(98);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

#if !ALLOT_TEST_SANITIZED  // an emptied environment has no place for the sanitizer's runtime either
// Acceptance test 12.
SLICE_TEST(ChildrenWithAnEmptiedEnvironmentKeepTheLimit, "5G") {
  char* const empty[] = {nullptr};
  const std::string env = "/usr/bin/env";
  EXPECT_EQ(status_of_child([&](const auto& argv) { execve(argv[0], argv.data(), empty); }), 5);
  EXPECT_EQ(status_of_child([&](const auto& argv) { execve(argv[0], argv.data(), nullptr); }), 5);
  EXPECT_EQ(status_of_child([&](const auto& argv) { execvpe(argv[0], argv.data(), empty); }), 5);
  EXPECT_EQ(status_of_child([&](const auto& argv) {
              execle(argv[0], argv[0], argv[1], argv[2], nullptr, empty);
            }),
            5);
  EXPECT_EQ(status_of_child(
                [&](const auto& argv) { execl(argv[0], argv[0], argv[1], argv[2], nullptr); }),
            5);
  EXPECT_EQ(status_of_child(
                [&](const auto& argv) { execlp(argv[0], argv[0], argv[1], argv[2], nullptr); }),
            5);
  EXPECT_EQ(status_of_child([&](const auto& argv) {
              clearenv();
              execv(argv[0], argv.data());
            }),
            5);
  EXPECT_EQ(status_of_child([&](const auto& argv) {
              clearenv();
              execvp(argv[0], argv.data());
            }),
            5);
  EXPECT_EQ(status_of_child([&](const auto& argv) {
              const int fd = open(argv[0], O_RDONLY);
              fexecve(fd, argv.data(), empty);
            }),
            5);
  EXPECT_EQ(status_of_child([&](const auto& argv) {
              execl(env.c_str(), "env", "-i", argv[0], argv[1], argv[2], nullptr);
            }),
            5);
  EXPECT_EQ(status_of_child([&](const auto& argv) {
              if (vfork() == 0) {
                execve(argv[0], argv.data(), empty);
                _exit(97);
              }
              int status = 0;
              wait(&status);
              _exit(WEXITSTATUS(status));
            }),
            5);
  for (const bool search : {false, true}) {
    EXPECT_EQ(status_of_child([&](const auto& argv) {
                pid_t pid = 0;
                (search ? posix_spawnp : posix_spawn)(&pid, argv[0], nullptr, nullptr, argv.data(),
                                                      empty);
                int status = 0;
                waitpid(pid, &status, 0);
                _exit(WEXITSTATUS(status));
              }),
              5);
  }
}

// An environment that is completed keeps what it says: other variables, another LD_PRELOAD,
// ALLOT_DISABLE.
SLICE_TEST(ACompletedEnvironmentKeepsItsOwnEntries, "5G") {
  std::vector<std::string> entries = {"COLOUR=green", "LD_PRELOAD=libdl.so.2", "ALLOT_GPU_MEM=3G"};
  const std::vector<char*> envp = pointers(entries);
  std::vector<std::string> words = {
      "sh", "-c", "echo $COLOUR $ALLOT_GPU_MEM; echo $LD_PRELOAD; test -n \"$ALLOT_DIR\""};
  const std::vector<char*> argv = pointers(words);
  int out[2];
  ASSERT_EQ(pipe(out), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(out[1], 1);
    execvpe("sh", argv.data(), envp.data());
    _exit(98);
  }
  close(out[1]);
  std::string text;
  for (char c; read(out[0], &c, 1) == 1;) text += c;
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(text, "green 3G\nlibdl.so.2:" + library_folder() + "/libcuda.so.1:" + library_folder() +
                      "/libnvidia-ml.so.1\n");
}

TEST(Shim, AProgramOutsideASliceStartsOthersUnchanged) {
  Environment environment = slice_environment({.memory = ""});
  const Outcome outcome =
      run_program({"sh", "-c", "env -i /usr/bin/env; exec env -i /usr/bin/env"}, environment);
  EXPECT_EQ(outcome.output, "");
  EXPECT_TRUE(outcome.ok());
}
#endif

SLICE_TEST(ExecOfAMissingProgramReportsItsErrno) {
  char* const empty[] = {nullptr};
  char name[] = "/nonexistent/program";
  char* const argv[] = {name, nullptr};
  errno = 0;
  EXPECT_EQ(execve(name, argv, empty), -1);
  EXPECT_EQ(errno, ENOENT);
  errno = 0;
  EXPECT_EQ(execl("/etc/passwd", "passwd", nullptr), -1);
  EXPECT_EQ(errno, EACCES);
  pid_t pid = 0;
  EXPECT_EQ(posix_spawn(&pid, name, nullptr, nullptr, argv, empty), ENOENT);
}

// A failed exec leaves the slot as it was, and a forked child's end leaves the parent's charges
// alone.
SLICE_TEST(TheEndOfAForkedChildLeavesTheParentsCharges) {
  const Cuda cuda;
  start_cuda(cuda);
  CUdeviceptr block = 0;
  ASSERT_EQ(cuda.cuMemAlloc_v2(&block, 100 * kMiB), CUDA_SUCCESS);
  const uint64_t before = ledger_used();
  for (int i = 0; i < 3; ++i) {
    const pid_t pid = fork();
    if (pid == 0) {
      CUdeviceptr mine = 0;
      cuda.cuMemAlloc_v2(&mine, 10 * kMiB);  // refused by the driver: forked
      cuda.cuMemFree_v2(block);
      if (i == 1) _exit(0);
      exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
  }
  EXPECT_EQ(ledger_used(), before);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_LINEAR), 100 * kMiB);
  char* const empty[] = {nullptr};
  char name[] = "/nonexistent/program";
  char* const argv[] = {name, nullptr};
  execve(name, argv, empty);
  ASSERT_EQ(cuda.cuMemFree_v2(block), CUDA_SUCCESS);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_LINEAR), 0u);
}

SLICE_TEST(AChildForkedBeforeCuInitIsAProcessOfTheSliceByItself, "4G") {
  const pid_t pid = fork();
  if (pid == 0) {
    const Cuda cuda;
    start_cuda(cuda);
    CUdeviceptr block = 0;
    const bool ok = cuda.cuMemAlloc_v2(&block, kGiB) == CUDA_SUCCESS &&
                    ledger_charged(ALLOT_KIND_LINEAR) == kGiB &&
                    cuda.cuMemAlloc_v2(&block, 4 * kGiB) == CUDA_ERROR_OUT_OF_MEMORY;
    _exit(ok ? 0 : 1);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
}

SLICE_TEST(IoctlsOfOtherDevicesAreUntouched) {
  int bytes = -1;
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  ASSERT_EQ(write(ends[1], "abc", 3), 3);
  using Ioctl = int (*)(int, unsigned long, ...);
  const Ioctl call = reinterpret_cast<Ioctl>(dlsym(RTLD_DEFAULT, "ioctl"));
  EXPECT_EQ(call(ends[0], 0x541B /* FIONREAD */, &bytes), 0);
  EXPECT_EQ(bytes, 3);
  errno = 0;
  EXPECT_EQ(call(-1, 0x541B, &bytes), -1);
  EXPECT_EQ(errno, EBADF);
  errno = 0;
  EXPECT_EQ(call(ends[0], 0x4600 /* FBIOGET_VSCREENINFO: type 'F' too */, &bytes), -1);
  EXPECT_EQ(errno, ENOTTY);
}

// Threads that start together initialise once and are all accounted.
SLICE_TEST(ThreadsMayInitialiseAtOnce) {
  const Cuda cuda;
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      CUcontext context = nullptr;
      CUdeviceptr block = 0;
      if (cuda.cuInit(0) == CUDA_SUCCESS &&
          cuda.cuDevicePrimaryCtxRetain(&context, 0) == CUDA_SUCCESS &&
          cuda.cuCtxSetCurrent(context) == CUDA_SUCCESS &&
          cuda.cuMemAlloc_v2(&block, 3 * kMiB) == CUDA_SUCCESS) {
        ++good;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(good, 8);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_LINEAR), 8 * 4 * kMiB);
}

}  // namespace
}  // namespace allot::shim_test
