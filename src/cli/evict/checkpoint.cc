// See checkpoint.h. Requests and replies are small structures, written and read whole.
#include "cli/evict/checkpoint.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>

#include "cli/failure.h"

namespace allot::cli {
namespace {

using Clock = std::chrono::steady_clock;

enum Operation : uint32_t { kHello, kState, kLock, kCheckpoint, kRestore, kUnlock };

// Replies of the child that are not CUDA results.
constexpr int32_t kNoLibrary = -1;
constexpr int32_t kNoEntries = -2;
constexpr double kHelloSeconds = 60;  // a cold driver on an 8-GPU machine needs up to 20 s
constexpr double kQuickSeconds = 20;

template <class Function>
Function* symbol(void* library, const char* name) {
  return reinterpret_cast<Function*>(dlsym(library, name));
}

struct Entries {
  CUresult (*init)(unsigned) = nullptr;
  CUresult (*state)(int, CUprocessState*) = nullptr;
  CUresult (*lock)(int, CUcheckpointLockArgs*) = nullptr;
  CUresult (*checkpoint)(int, CUcheckpointCheckpointArgs*) = nullptr;
  CUresult (*restore)(int, CUcheckpointRestoreArgs*) = nullptr;
  CUresult (*unlock)(int, CUcheckpointUnlockArgs*) = nullptr;
  bool all() const {
    return init != nullptr && state != nullptr && lock != nullptr && checkpoint != nullptr &&
           restore != nullptr && unlock != nullptr;
  }
};

int32_t open_driver(const DriverFiles& driver, Entries* entries) {
  unsetenv("CUDA_VISIBLE_DEVICES");  // the process may use any
  void* library = dlopen(driver.cuda.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return kNoLibrary;
  entries->init = symbol<CUresult(unsigned)>(library, "cuInit");
  entries->state = symbol<CUresult(int, CUprocessState*)>(library, "cuCheckpointProcessGetState");
  entries->lock = symbol<CUresult(int, CUcheckpointLockArgs*)>(library, "cuCheckpointProcessLock");
  entries->checkpoint =
      symbol<CUresult(int, CUcheckpointCheckpointArgs*)>(library, "cuCheckpointProcessCheckpoint");
  entries->restore =
      symbol<CUresult(int, CUcheckpointRestoreArgs*)>(library, "cuCheckpointProcessRestore");
  entries->unlock =
      symbol<CUresult(int, CUcheckpointUnlockArgs*)>(library, "cuCheckpointProcessUnlock");
  if (!entries->all()) return kNoEntries;
  // The driver requires it where the GPU's persistence mode is off.
  return entries->init(0);
}

CUresult perform(const Entries& entries, uint32_t operation, int pid, uint32_t timeout_ms,
                 CUprocessState* state) {
  CUcheckpointLockArgs lock = {};
  lock.timeoutMs = timeout_ms;
  switch (operation) {
    case kState:
      return entries.state(pid, state);
    case kLock:
      return entries.lock(pid, &lock);
    case kCheckpoint:
      return entries.checkpoint(pid, nullptr);
    case kRestore:
      return entries.restore(pid, nullptr);
    case kUnlock:
      return entries.unlock(pid, nullptr);
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

bool readable_within(int fd, double seconds) {
  const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                      std::chrono::duration<double>(seconds));
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
    pollfd wait = {fd, POLLIN, 0};
    const int ready = poll(&wait, 1, left > 0 ? static_cast<int>(left) + 1 : 0);
    if (ready > 0) return true;
    if (ready == 0 && left <= 0) return false;
    if (ready < 0 && errno != EINTR) return false;
  }
}

// Sequenced packets: a message arrives whole or not at all, and a peer that is gone is an error,
// not SIGPIPE.
template <class T>
bool send_whole(int fd, const T& message) {
  return send(fd, &message, sizeof message, MSG_NOSIGNAL) == sizeof message;
}

template <class T>
bool receive_whole(int fd, T* message) {
  ssize_t n;
  do {
    n = recv(fd, message, sizeof *message, 0);
  } while (n < 0 && errno == EINTR);
  return n == static_cast<ssize_t>(sizeof *message);
}

}  // namespace

CheckpointDriver::~CheckpointDriver() {
  stop();
}

void CheckpointDriver::stop() {
  if (child_ < 0) return;
  close(to_);
  kill(child_, SIGKILL);
  while (waitpid(child_, nullptr, 0) < 0 && errno == EINTR) {
  }
  child_ = -1;
  to_ = from_ = -1;
}

void CheckpointDriver::serve(const DriverFiles& driver, int in, int out) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  Entries entries;
  const int32_t opened = open_driver(driver, &entries);
  Request request = {};
  while (receive_whole(in, &request)) {
    Reply reply = {opened, 0};
    if (opened == CUDA_SUCCESS && request.operation != kHello) {
      CUprocessState state = CU_PROCESS_STATE_RUNNING;
      reply.result = perform(entries, request.operation, request.pid, request.timeout_ms, &state);
      reply.state = state;
    }
    if (!send_whole(out, reply)) break;
  }
  _exit(0);  // not exit: the buffers and handlers are the parent's
}

void CheckpointDriver::start() {
  if (child_ >= 0) return;
  if (driver_.cuda.empty()) {
    refuse("libcuda.so.1 was not found; the move needs the driver's checkpoint calls");
  }
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    refuse("socketpair: {}; allow this shell more open files (ulimit -n)", describe_errno(errno));
  }
  child_ = fork();
  if (child_ < 0) refuse("fork: {}; try again", describe_errno(errno));
  if (child_ == 0) {
    close(ends[0]);
    serve(driver_, ends[1], ends[1]);
  }
  close(ends[1]);
  to_ = from_ = ends[0];
  const CheckpointAnswer hello = ask({kHello, 0, 0}, kHelloSeconds);
  if (hello.ok()) return;
  stop();
  const auto reply = static_cast<int32_t>(hello.result);
  if (hello.late) refuse("the driver did not answer within {} s", kHelloSeconds);
  if (reply == kNoLibrary) refuse("{} cannot be loaded", driver_.cuda);
  if (reply == kNoEntries) {
    refuse(
        "{} has no checkpoint calls (cuCheckpointProcess*), which came with driver 570; "
        "'allot freeze' pauses a slice on an older one and keeps its memory on the GPU",
        driver_.cuda);
  }
  refuse("{}: cuInit: {}", driver_.cuda, cuda_text(hello.result));
}

CheckpointAnswer CheckpointDriver::ask(const Request& request, double seconds, uint32_t* state) {
  if (child_ < 0) start();
  CheckpointAnswer answer;
  const Clock::time_point begin = Clock::now();
  Reply reply = {};
  if (!send_whole(to_, request) || !readable_within(from_, seconds)) {
    answer.late = true;
    stop();
  } else if (!receive_whole(from_, &reply)) {
    stop();  // ended inside the driver
  } else {
    answer.result = static_cast<CUresult>(reply.result);
    if (state != nullptr) *state = reply.state;
  }
  answer.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  return answer;
}

bool CheckpointDriver::state(uint32_t pid, CUprocessState* state, CheckpointAnswer* answer) {
  uint32_t raw = 0;
  const CheckpointAnswer got = ask({kState, static_cast<int32_t>(pid), 0}, kQuickSeconds, &raw);
  if (answer != nullptr) *answer = got;
  *state = static_cast<CUprocessState>(raw);
  return got.ok();
}

CheckpointAnswer CheckpointDriver::lock(uint32_t pid, double seconds) {
  const double ms = seconds * 1000 < 1 ? 1 : seconds * 1000;  // 0 would be for ever
  const auto timeout_ms = static_cast<uint32_t>(ms < 4e9 ? ms : 4e9);
  // The driver's own limit first; then ours, for a driver that does not keep its own.
  return ask({kLock, static_cast<int32_t>(pid), timeout_ms}, seconds + kQuickSeconds);
}

CheckpointAnswer CheckpointDriver::checkpoint(uint32_t pid, double seconds) {
  return ask({kCheckpoint, static_cast<int32_t>(pid), 0}, seconds);
}

CheckpointAnswer CheckpointDriver::restore(uint32_t pid, double seconds) {
  return ask({kRestore, static_cast<int32_t>(pid), 0}, seconds);
}

CheckpointAnswer CheckpointDriver::unlock(uint32_t pid) {
  return ask({kUnlock, static_cast<int32_t>(pid), 0}, kQuickSeconds);
}

std::string cuda_text(CUresult result) {
  switch (static_cast<int>(result)) {
    case CUDA_ERROR_INVALID_VALUE:
      return "the driver does not know this process";
    case CUDA_ERROR_OUT_OF_MEMORY:
      return "out of memory";
    case CUDA_ERROR_NOT_INITIALIZED:
      return "the process has not initialised CUDA";
    case CUDA_ERROR_ILLEGAL_STATE:
      return "the process is in the wrong state for this";
    case CUDA_ERROR_NOT_SUPPORTED:
      return "not supported: the driver cannot move something that the process has";
    case CUDA_ERROR_NOT_READY:
      return "its work has not ended in time";
    default:
      return fmt::format("CUDA error {}", static_cast<int>(result));
  }
}

}  // namespace allot::cli
