// The memory ledger of one tenant: reserve first, then allocate.
//
// Pure: works on caller-owned memory (an AllotTenantFile, shared between processes), makes no system
// call, holds no lock, and asks the caller whether a process is alive. Everything here may be cut off
// by SIGKILL or SIGSTOP at any instruction without blocking or misleading anybody else.
//
// Two places hold a charge: the slot of the process (how much of which kind) and the account of the
// GPU (the sum, against which the limit is checked). They cannot change together, so:
//
//   reserve(n):  A = account                     (remember A.generation)
//                slot.charge += n
//                loop: if A.used + n > limit: slot.charge -= n; touch(account); refuse
//                      CAS account: A -> {A.used + n, same generation, A.sequence + 1}; done if it took
//                      A = account; if A.generation changed: recount, which now includes n
//   release(n):  the same with slot.charge -= n first
//   recount():   A = account; S = sum of charges over live slots
//                CAS account: A -> {S, A.generation + 1, A.sequence + 1}; again if it failed
//
// Rule that makes it exact: every change of a slot's charge is followed by a change of the account
// word by the same thread. So a recount whose sum saw a half-made operation either fails its CAS (the
// operation finished meanwhile) or wins, and then the operation sees the new generation and recounts
// instead of adding. A process killed half-way leaves a slot that dies with it; whoever ends the slot
// recounts. The word is 16 bytes (cmpxchg16b), so no wrap of the counters can be met in practice.
#pragma once

#include <cstdint>

#include "abi/region.h"
#include "base/result.h"

namespace allot::core {

// Answers whether the process behind a slot still runs (true) or its charges may be returned (false).
// Called with copies; must not call back into the ledger.
using AliveFn = bool (*)(void* context, uint32_t pid, const AllotSlot& slot);

struct SlotId {
  uint32_t index;
  uint32_t generation;
};

class Ledger {
 public:
  // `file` must be a mapped tenant file that shm has checked; it outlives the ledger.
  explicit Ledger(AllotTenantFile* file) : file_(file) {}

  // Takes a slot for process `pid` started at `start_time`; a live slot of the same pid is reset and
  // taken over (an earlier image of this process, or a pid used again).
  // Errors: kFull when all slots are live after dead ones were reclaimed by the caller.
  // One thread a process; neither allocates nor blocks.
  Result<SlotId> take_slot(uint32_t pid, uint64_t start_time, uint64_t pid_namespace,
                           const char* command, uint64_t now_unix_ns);

  // Ends a slot and returns its charges. Harmless when the slot has already ended.
  void end_slot(SlotId slot);

  // Ends every slot whose process `alive` denies, and recounts if any ended. Returns how many.
  uint32_t reclaim(AliveFn alive, void* context);

  // Charges `bytes` if they fit below the limit; false (nothing changed) if not.
  // Any thread of the slot's process; lock-free; neither allocates nor blocks. Not for use by a
  // process that does not own the slot.
  bool reserve(SlotId slot, uint32_t gpu, AllotKind kind, uint64_t bytes);

  // Charges `bytes` even above the limit: the driver has taken them already.
  void charge(SlotId slot, uint32_t gpu, AllotKind kind, uint64_t bytes);

  // Gives back `bytes` of an earlier charge; more than the slot holds of that kind gives back what it
  // holds (and is counted as a fault of ours, see faults()).
  void release(SlotId slot, uint32_t gpu, AllotKind kind, uint64_t bytes);

  // Sets the account of `gpu` to the sum over live slots. Returns that sum.
  uint64_t recount(uint32_t gpu);

  // Bytes charged on `gpu` by the whole tenant / by one slot and kind.
  uint64_t used(uint32_t gpu) const;
  uint64_t charged(SlotId slot, uint32_t gpu, AllotKind kind) const;

  // The one answer to "how much is there": total = min(limit, physical), free = min(limit - used,
  // physical_free), never below 0.
  struct View {
    uint64_t total_bytes;
    uint64_t free_bytes;
    uint64_t used_bytes;
  };
  View view(uint32_t gpu, uint64_t physical_total, uint64_t physical_free) const;

  AllotTenantFile* file() const { return file_; }

 private:
  AllotTenantFile* file_;
};

}  // namespace allot::core
