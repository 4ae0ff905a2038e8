#include "tests/shim/harness.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

namespace allot::shim_test {
namespace {

namespace fs = std::filesystem;

constexpr const char* kCase = "ALLOT_TEST_CASE";       // which body a child runs
constexpr const char* kMachine = "ALLOT_TEST_FOLDER";  // its machine's folder

std::map<std::string, void (*)()>& cases() {
  static std::map<std::string, void (*)()> all;
  return all;
}

std::vector<std::string>& arguments() {
  static std::vector<std::string> all;
  return all;
}

std::string self_path() {
  return fs::read_symlink("/proc/self/exe").string();
}

// One folder for each test, gone with it.
class Machine : public testing::EmptyTestEventListener {
 public:
  void OnTestStart(const testing::TestInfo&) override {
    char name[] = "/tmp/allot-shim-XXXXXX";
    folder = mkdtemp(name);
    fs::create_directory(folder + "/region");
    fs::permissions(folder + "/region", fs::perms::owner_all);
    fs::create_directory(folder + "/sim");
    fs::create_symlink(sim_folder() + "/libcuda.so.1", folder + "/bare.so");
  }
  void OnTestEnd(const testing::TestInfo&) override { fs::remove_all(folder); }
  std::string folder;
};
Machine* machine = nullptr;

std::string read_all(int fd) {
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = read(fd, buffer, sizeof(buffer))) > 0;)
    text.append(buffer, static_cast<size_t>(n));
  return text;
}

Running start(const std::vector<std::string>& command, const Environment& environment) {
  int out[2];
  int in[2];
  if (pipe2(out, O_CLOEXEC) != 0 || pipe2(in, O_CLOEXEC) != 0) abort();
  std::vector<std::string> entries;
  for (const auto& [name, value] : environment) entries.push_back(name + "=" + value);
  for (const char* name : {"PATH", "HOME", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"}) {
    if (const char* value = getenv(name)) entries.push_back(std::string(name) + "=" + value);
  }
  // What the libraries keep until the process ends is meant to be kept.
  if (getenv("ASAN_OPTIONS") == nullptr) entries.push_back("ASAN_OPTIONS=detect_leaks=0");
  // The thread sanitizer lets each process with threads sleep for a second before it ends.
  if (getenv("TSAN_OPTIONS") == nullptr) entries.push_back("TSAN_OPTIONS=atexit_sleep_ms=0");
  std::vector<char*> envp;
  for (std::string& entry : entries) envp.push_back(entry.data());
  envp.push_back(nullptr);
  std::vector<std::string> words = command;
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(in[0], 0);
    dup2(out[1], 1);
    dup2(out[1], 2);
    execvpe(argv[0], argv.data(), envp.data());
    _exit(127);
  }
  close(out[1]);
  close(in[0]);
  return {pid, out[0], in[1]};
}

}  // namespace

CaseRegistration::CaseRegistration(const char* name, void (*body)()) {
  cases()[name] = body;
}

const std::string& machine_folder() {
  static const std::string inherited = getenv(kMachine) ? getenv(kMachine) : "";
  return inherited.empty() ? machine->folder : inherited;
}

std::string library_folder() {
  return ALLOT_TEST_BUILD_DIR "/lib/allot";
}
std::string sim_folder() {
  return ALLOT_TEST_BUILD_DIR "/lib/allot-sim";
}

Environment bare_environment(const Options& options) {
  Environment environment = {{"ALLOT_SIM_GPUS", options.gpus},
                             {"ALLOT_SIM_DIR", machine_folder() + "/sim"},
                             {"LD_LIBRARY_PATH", sim_folder()},
                             {kMachine, machine_folder()}};
  for (const auto& [name, value] : options.more) environment[name] = value;
  return environment;
}

Environment slice_environment(const Options& options) {
  Environment environment = {
      {"ALLOT_SIM_GPUS", options.gpus},
      {"ALLOT_SIM_DIR", machine_folder() + "/sim"},
      {"ALLOT_DIR", machine_folder() + "/region"},
      {"ALLOT_REAL_CUDA", sim_folder() + "/libcuda.so.1"},
      {"ALLOT_REAL_NVML", sim_folder() + "/libnvidia-ml.so.1"},
      {"ALLOT_LOG", machine_folder() + "/log"},
      {"LD_LIBRARY_PATH", library_folder()},
      {"LD_PRELOAD", ALLOT_TEST_SANITIZER_PRELOAD + library_folder() +
                         "/libcuda.so.1:" + library_folder() + "/libnvidia-ml.so.1"},
      {kMachine, machine_folder()}};
  if (!options.memory.empty()) environment["ALLOT_GPU_MEM"] = options.memory;
  if (const char* swap = getenv("ALLOT_TEST_SWAP")) environment["ALLOT_SWAP"] = swap;
  for (const auto& [name, value] : options.more) environment[name] = value;
  return environment;
}

Outcome run_program(const std::vector<std::string>& command, const Environment& environment) {
  Running running = start(command, environment);
  return finish(running);
}

std::vector<std::string> case_command(const std::string& name,
                                      const std::vector<std::string>& words) {
  std::vector<std::string> command = {self_path(), "--case", name};
  command.insert(command.end(), words.begin(), words.end());
  return command;
}

Outcome run_case(const std::string& name, const Environment& environment,
                 const std::vector<std::string>& words) {
  return run_program(case_command(name, words), environment);
}

const std::vector<std::string>& case_arguments() {
  return arguments();
}

Running start_case(const std::string& name, const Environment& environment,
                   const std::vector<std::string>& words) {
  return start(case_command(name, words), environment);
}

std::string read_line(Running& running) {
  std::string line;
  for (char c; read(running.out, &c, 1) == 1 && c != '\n';) line += c;
  return line;
}

void write_line(Running& running, const std::string& line) {
  const std::string text = line + "\n";
  if (write(running.in, text.data(), text.size()) < 0) ADD_FAILURE() << "child is gone";
}

Outcome finish(Running& running) {
  close(running.in);
  Outcome outcome;
  outcome.output = read_all(running.out);
  close(running.out);
  waitpid(running.pid, &outcome.status, 0);
  return outcome;
}

void start_cuda(const Cuda& cuda, CUdevice device) {
  CUcontext context = nullptr;
  ASSERT_EQ(cuda.cuInit(0), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuDevicePrimaryCtxRetain(&context, device), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuCtxSetCurrent(context), CUDA_SUCCESS);
}

const Cuda& bare() {
  static const Cuda cuda((machine_folder() + "/bare.so").c_str());
  return cuda;
}

uint64_t physical_used() {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  EXPECT_EQ(bare().cuMemGetInfo_v2(&free_bytes, &total_bytes), CUDA_SUCCESS);
  return total_bytes - free_bytes;
}

namespace {

template <class Read>
uint64_t with_slice(Read read) {
  const char* name = getenv("ALLOT_NAME");
  const std::string path = machine_folder() + "/region/" + (name ? name : "default") + ".slice";
  Result<shm::Slice> slice = shm::open_slice(path.c_str(), false);
  if (!slice) return 0;
  const uint64_t value = read(*slice->file);
  shm::unmap(*slice);
  return value;
}

}  // namespace

uint64_t ledger_used(uint32_t gpu) {
  return with_slice([gpu](AllotSliceFile& file) { return core::Ledger(&file).used(gpu); });
}

uint64_t ledger_charged(AllotKind kind, uint32_t gpu) {
  return with_slice([kind, gpu](AllotSliceFile& file) -> uint64_t {
    for (uint32_t i = 0; i < ALLOT_MAX_SLOTS; ++i) {
      const uint64_t word = file.slot_words[i];
      if (ALLOT_SLOT_STATE(word) == ALLOT_SLOT_LIVE &&
          ALLOT_SLOT_PID(word) == static_cast<uint32_t>(getpid())) {
        return file.slots[i].charges[gpu][kind];
      }
    }
    return 0;
  });
}

bool has_slot() {
  return with_slice([](AllotSliceFile& file) -> uint64_t {
           for (const uint64_t& word : file.slot_words) {
             if (ALLOT_SLOT_STATE(word) == ALLOT_SLOT_LIVE &&
                 ALLOT_SLOT_PID(word) == static_cast<uint32_t>(getpid())) {
               return 1;
             }
           }
           return 0;
         }) != 0;
}

bool wait_until(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

// The one test that a child runs.
TEST(Case, Selected) {
  const char* name = getenv(kCase);
  ASSERT_NE(name, nullptr);
  ASSERT_TRUE(cases().count(name)) << name;
  cases()[name]();
}

}  // namespace allot::shim_test

int main(int argc, char** argv) {
  using namespace allot::shim_test;
  testing::InitGoogleTest(&argc, argv);
  if (argc > 2 && strcmp(argv[1], "--case") == 0) {
    setenv(kCase, argv[2], 1);
    for (int i = 3; i < argc; ++i) arguments().push_back(argv[i]);
    testing::GTEST_FLAG(filter) = "Case.Selected";
    testing::GTEST_FLAG(brief) = true;
    return RUN_ALL_TESTS();
  }
  testing::GTEST_FLAG(filter) = testing::GTEST_FLAG(filter) + ":-Case.*";
  machine = new Machine;
  testing::UnitTest::GetInstance()->listeners().Append(machine);
  return RUN_ALL_TESTS();
}
