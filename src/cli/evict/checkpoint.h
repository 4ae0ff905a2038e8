// The driver's checkpoint calls, made in a child process on behalf of a command.
//
// The command never loads the driver: its library is large and opens devices, and a call that does
// not return must be abandoned without losing the work so far. So a child opens the real library by
// its path and makes one call after the other, as a pipe tells it. A child that is too late is
// killed, and the next call gets a new one. The driver's own protocol is with the process whose
// memory moves, so a child's death leaves that process in one of the four states, which the driver
// can report again.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "cli/gpus/libraries.h"
#include "driver/cuda_abi.h"

namespace allot::cli {

// The result of a call. `late`: it did not return in time.
struct CheckpointAnswer {
  CUresult result = CUDA_ERROR_UNKNOWN;
  bool late = false;
  double seconds = 0;
  bool ok() const { return !late && result == CUDA_SUCCESS; }
};

class CheckpointDriver {
 public:
  explicit CheckpointDriver(DriverFiles driver) : driver_(std::move(driver)) {}
  ~CheckpointDriver();
  CheckpointDriver(const CheckpointDriver&) = delete;
  CheckpointDriver& operator=(const CheckpointDriver&) = delete;

  // Starts the child, which initialises the driver. Throws a Failure (exit 125): no driver, or a
  // driver without these entries (before 570). Blocks up to 60 s.
  void start();

  // State of a process. False with the reason in `answer` when the driver does not know it.
  bool state(uint32_t pid, CUprocessState* state, CheckpointAnswer* answer = nullptr);

  // Blocks further calls of the process and waits until its submitted work has ended. Then it is
  // LOCKED. After `seconds`: NOT_READY, and the process runs on.
  CheckpointAnswer lock(uint32_t pid, double seconds);
  // LOCKED -> CHECKPOINTED: moves the memory to the host and frees everything on the GPU. And back
  // again.
  CheckpointAnswer checkpoint(uint32_t pid, double seconds);
  CheckpointAnswer restore(uint32_t pid, double seconds);
  // LOCKED -> RUNNING.
  CheckpointAnswer unlock(uint32_t pid);

 private:
  struct Request {
    uint32_t operation;
    int32_t pid;
    uint32_t timeout_ms;
  };
  struct Reply {
    int32_t result;
    uint32_t state;
  };
  CheckpointAnswer ask(const Request& request, double seconds, uint32_t* state = nullptr);
  void stop();
  [[noreturn]] static void serve(const DriverFiles& driver, int in, int out);

  DriverFiles driver_;
  pid_t child_ = -1;
  int to_ = -1;
  int from_ = -1;
};

// "out of memory" for CUDA_ERROR_OUT_OF_MEMORY, "CUDA error 304" for a result without words here.
std::string cuda_text(CUresult result);

}  // namespace allot::cli
