// The driver's state in this process: cuInit, fork, exit, and which GPUs CUDA_VISIBLE_DEVICES
// leaves.
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "runtime.h"

namespace allot::sim {

std::atomic<State> g_state{State::kOff};
std::atomic<bool> g_faults{false};

namespace {

struct Process {
  std::mutex mutex;
  std::vector<uint32_t> visible;  // machine index of each device
  CUresult failed = CUDA_SUCCESS;
};

Process& process() {
  static Process& state = *new Process;
  return state;
}

// One entry of CUDA_VISIBLE_DEVICES; UINT32_MAX ends the list, as the driver does it.
uint32_t match_device(const std::string& name, const Machine* m) {
  if (name.rfind("GPU-", 0) == 0 || name.rfind("MIG-", 0) == 0) {
    uint32_t found = UINT32_MAX;
    for (uint32_t i = 0; i < m->gpu_count; i++) {
      if (uuid_text(m->gpus[i]).rfind(name, 0) != 0) continue;
      if (found != UINT32_MAX) return UINT32_MAX;  // the prefix is not unique
      found = i;
    }
    return found;
  }
  char* end = nullptr;
  const long index = strtol(name.c_str(), &end, 10);
  if (end == name.c_str() || index < 0 || index >= static_cast<long>(m->gpu_count))
    return UINT32_MAX;
  return static_cast<uint32_t>(index);
}

std::vector<uint32_t> visible_devices(const Machine* m) {
  std::vector<uint32_t> list;
  const char* text = getenv("CUDA_VISIBLE_DEVICES");
  if (text == nullptr) {
    for (uint32_t i = 0; i < m->gpu_count; i++) list.push_back(i);
    return list;
  }
  std::string rest = text;
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    std::string name = rest.substr(0, comma);
    rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
    while (!name.empty() && name.front() == ' ') name.erase(0, 1);
    while (!name.empty() && name.back() == ' ') name.pop_back();
    const uint32_t index = match_device(name, m);
    if (index == UINT32_MAX) break;
    for (uint32_t seen : list) {
      if (seen == index) return {};  // named twice: the driver shows no device at all
    }
    list.push_back(index);
  }
  return list;
}

// Only an atomic store: no lock may be taken in a forked child.
void in_forked_child() {
  if (g_state.load() != State::kOff) g_state.store(State::kForked);
  forget_checkpoints();
}

void at_exit() {
  State ready = State::kReady;
  g_state.compare_exchange_strong(ready, State::kGone);
}

CUresult start_up() {
  Machine* m = nullptr;
  load_faults();
  switch (attach_machine(&m)) {
    case Attach::kOk:
      break;
    case Attach::kBadConfig:
      return CUDA_ERROR_INVALID_VALUE;
    case Attach::kOtherConfig:
      return CUDA_ERROR_SYSTEM_NOT_READY;
    default:
      return CUDA_ERROR_OPERATING_SYSTEM;
  }
  process().visible = visible_devices(m);
  if (process().visible.empty()) return CUDA_ERROR_NO_DEVICE;
  serve_checkpoints();
  if (join_machine() != Attach::kOk) return CUDA_ERROR_DEVICE_UNAVAILABLE;
  pthread_atfork(nullptr, nullptr, in_forked_child);
  atexit(at_exit);
  return CUDA_SUCCESS;
}

}  // namespace

CUresult initialise() {
  if (g_state.load() == State::kForked) return CUDA_ERROR_NOT_INITIALIZED;
  if (g_state.load() == State::kGone) return CUDA_ERROR_DEINITIALIZED;
  Process& state = process();
  std::lock_guard<std::mutex> lock(state.mutex);
  if (g_state.load() == State::kReady) return CUDA_SUCCESS;
  if (state.failed != CUDA_SUCCESS) return state.failed;
  const CUresult result = start_up();
  if (result == CUDA_SUCCESS) {
    g_state.store(State::kReady);
  } else {
    state.failed = result;
  }
  return result;
}

CUresult enter_slowly(const char* function) {
  switch (g_state.load()) {
    case State::kOff:
    case State::kForked:
      return CUDA_ERROR_NOT_INITIALIZED;
    case State::kGone:
      return CUDA_ERROR_DEINITIALIZED;
    case State::kReady:
      break;
  }
  int result = 0;
  if (take_fault(function, &result)) return static_cast<CUresult>(result);
  return CUDA_SUCCESS;
}

int device_count() {
  return static_cast<int>(process().visible.size());
}
bool valid_device(CUdevice device) {
  return device >= 0 && device < device_count();
}
uint32_t gpu_of(CUdevice device) {
  return process().visible[static_cast<size_t>(device)];
}

Hub& hub() {
  static Hub& state = *new Hub;
  return state;
}

}  // namespace allot::sim
