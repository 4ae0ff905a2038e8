// cuCheckpointProcess*: another process stops this one's calls, takes its memory off the card, and
// back.
//
//     RUNNING --lock--> LOCKED --checkpoint--> CHECKPOINTED
//             <-unlock-        <---restore----
//
// The caller leaves its request in the process's slot; the thread that proves the process alive
// carries it out and answers. Lock: calls wait from now on; when those under way and all that was
// submitted have ended, the process is locked, and when that takes longer than the time-out it runs
// on. Checkpoint: channels, clients and the control descriptor go, the pages leave the card
// (vram.h) but keep their places, so that addresses stay. Managed and shared memory are refused, as
// the driver's documentation has it.
#include <time.h>

#include <algorithm>

#include "driver/cuda_abi.h"
#include "memory.h"
#include "rm.h"
#include "runtime.h"

namespace allot::sim {

std::atomic<uint32_t> ApiCall::under_way{0};
std::atomic<uint32_t> ApiCall::locked{0};
thread_local uint32_t ApiCall::depth_ = 0;

void ApiCall::wait_unlocked() {
  for (;;) {
    under_way.fetch_sub(1);
    while (locked.load() != 0) wait_word(locked, 1, 1'000'000'000);
    under_way.fetch_add(1);
    if (locked.load() == 0) return;
  }
}

namespace {

enum Operation : uint32_t { kLock, kCheckpoint, kRestore, kUnlock };

// Names by which ALLOT_SIM_FAULTS of the process that is moved can refuse or delay them.
constexpr const char* kFaultNames[] = {"checkpoint:lock", "checkpoint:checkpoint",
                                       "checkpoint:restore", "checkpoint:unlock"};
constexpr int64_t kLookNs = 500'000;

void pause_ns(int64_t ns) {
  const timespec t{0, ns};
  nanosleep(&t, nullptr);
}

bool quiet() {
  if (ApiCall::under_way.load() != 0) return false;
  const std::vector<Context*> contexts = living_contexts();
  return std::all_of(contexts.begin(), contexts.end(), [](const Context* c) { return idle(c); });
}

void release() {
  ApiCall::locked = 0;
  wake_word(ApiCall::locked);
}

CUresult lock_process(ProcessSlot& slot) {
  if (slot.cuda_state != CU_PROCESS_STATE_RUNNING) return CUDA_ERROR_ILLEGAL_STATE;
  ApiCall::locked = 1;
  const int64_t end = now_ns() + static_cast<int64_t>(slot.timeout_ms) * 1'000'000;
  while (!quiet()) {
    if (slot.timeout_ms != 0 && now_ns() >= end) {
      release();
      return CUDA_ERROR_NOT_READY;
    }
    pause_ns(kLookNs);
  }
  slot.cuda_state = CU_PROCESS_STATE_LOCKED;
  return CUDA_SUCCESS;
}

CUresult checkpoint_process(ProcessSlot& slot) {
  if (slot.cuda_state != CU_PROCESS_STATE_LOCKED) return CUDA_ERROR_ILLEGAL_STATE;
  if (has_shares() || has_managed_memory()) return CUDA_ERROR_NOT_SUPPORTED;
  for (Context* c : living_contexts()) rm_close_context(c);
  // As in the kernel: what a client has lives until its last descriptor is closed.
  if (rm_let_go() && !park_pages()) {
    for (Context* c : living_contexts()) rm_open_context(c, true);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  slot.cuda_state = CU_PROCESS_STATE_CHECKPOINTED;
  return CUDA_SUCCESS;
}

CUresult restore_process(ProcessSlot& slot) {
  if (slot.cuda_state != CU_PROCESS_STATE_CHECKPOINTED) return CUDA_ERROR_ILLEGAL_STATE;
  if (!unpark_pages()) return CUDA_ERROR_OUT_OF_MEMORY;
  for (Context* c : living_contexts()) {
    resume_group(c->gpu, c->group);  // its channels are new ones, which run
    if (const CUresult r = rm_open_context(c, true); r != CUDA_SUCCESS) {
      slot.cuda_state = CU_PROCESS_STATE_FAILED;
      return r;
    }
  }
  slot.cuda_state = CU_PROCESS_STATE_LOCKED;
  return CUDA_SUCCESS;
}

CUresult unlock_process(ProcessSlot& slot) {
  if (slot.cuda_state != CU_PROCESS_STATE_LOCKED) return CUDA_ERROR_ILLEGAL_STATE;
  slot.cuda_state = CU_PROCESS_STATE_RUNNING;
  release();
  return CUDA_SUCCESS;
}

void serve(ProcessSlot& slot) {
  int fault = 0;
  if (slot.operation > kUnlock) {
    slot.result = CUDA_ERROR_INVALID_VALUE;
  } else if (g_faults && take_fault(kFaultNames[slot.operation], &fault)) {
    slot.result = fault;
  } else {
    switch (slot.operation) {
      case kLock:
        slot.result = lock_process(slot);
        break;
      case kCheckpoint:
        slot.result = checkpoint_process(slot);
        break;
      case kRestore:
        slot.result = restore_process(slot);
        break;
      default:
        slot.result = unlock_process(slot);
    }
  }
}

// The slot of a living process; null for one that does not use CUDA here.
ProcessSlot* slot_of(int pid, uint32_t* index) {
  Machine* m = machine();
  for (uint32_t i = 0; i < m->slots_high && i < kMaxSlots; i++) {
    ProcessSlot& slot = m->slots[i];
    if (slot.used == 0 || slot.pid != static_cast<uint32_t>(pid) || !slot_alive(i)) continue;
    *index = i;
    return &slot;
  }
  return nullptr;
}

CUresult ask(int pid, Operation operation, uint32_t timeout_ms) {
  uint32_t index = 0;
  ProcessSlot* slot = slot_of(pid, &index);
  if (slot == nullptr || index == my_slot()) return CUDA_ERROR_INVALID_VALUE;
  uint32_t mine = 0;
  {
    MachineLock lock;
    if (slot->request != slot->answer)
      return CUDA_ERROR_ILLEGAL_STATE;  // another call is under way
    slot->operation = operation;
    slot->timeout_ms = timeout_ms;
    mine = slot->request.fetch_add(1) + 1;
  }
  wake_word(slot->request);
  for (;;) {
    const uint32_t answered = slot->answer;
    if (answered == mine) return static_cast<CUresult>(slot->result);
    if (!slot_alive(index)) return CUDA_ERROR_INVALID_VALUE;
    wait_word(slot->answer, answered, 20'000'000);
  }
}

}  // namespace

void serve_checkpoints() {
  on_request(serve);
}

void forget_checkpoints() {
  ApiCall::locked = 0;
  ApiCall::under_way = 0;
}

}  // namespace allot::sim

using namespace allot::sim;

SIM_API cuCheckpointProcessGetState(int pid, CUprocessState* state) {
  SIM_ENTER();
  uint32_t index = 0;
  const ProcessSlot* slot = slot_of(pid, &index);
  if (state == nullptr || slot == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *state = static_cast<CUprocessState>(slot->cuda_state.load());
  return CUDA_SUCCESS;
}

SIM_API cuCheckpointProcessLock(int pid, CUcheckpointLockArgs* args) {
  SIM_ENTER();
  return ask(pid, kLock, args == nullptr ? 0 : args->timeoutMs);
}

SIM_API cuCheckpointProcessCheckpoint(int pid, CUcheckpointCheckpointArgs*) {
  SIM_ENTER();
  return ask(pid, kCheckpoint, 0);
}

SIM_API cuCheckpointProcessRestore(int pid, CUcheckpointRestoreArgs* args) {
  SIM_ENTER();
  if (args != nullptr && args->gpuPairsCount != 0) return CUDA_ERROR_NOT_SUPPORTED;
  return ask(pid, kRestore, 0);
}

SIM_API cuCheckpointProcessUnlock(int pid, CUcheckpointUnlockArgs*) {
  SIM_ENTER();
  return ask(pid, kUnlock, 0);
}
