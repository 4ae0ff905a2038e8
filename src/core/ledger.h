// The memory ledger of one slice: reserve first, then allocate.
//
// Pure: works on caller-owned memory (an AllotSliceFile, shared between processes), makes no
// system call, holds no lock, and asks the caller whether a process is alive. Everything here may
// be cut off by SIGKILL or SIGSTOP at any instruction without blocking or misleading anybody else.
// Every byte of the file is hostile: indexes and counts are copied and clamped before use, sums
// saturate.
//
// Two places hold a charge: the slot of the process (how much of which kind) and the account of the
// GPU (the sum, against which the limit is checked). They cannot change together, so:
//
//   reserve(n):    A = account; refuse if A.used + n > limit
//                  slot.charge += n
//                  loop: CAS account: A -> {A.used + n, same generation, sequence + 1}; won: done
//                        A = account
//                        generation changed:  recount, which now includes n; done if its sum
//                                             fits; else slot.charge -= n, recount, start again
//                        A.used + n > limit:  slot.charge -= n, touch the account, refuse
//   release(n):    A = account; slot.charge -= n; the same loop with - n, without a limit
//   touch:         CAS account: A -> {A.used, same generation, sequence + 1}
//                  generation changed:  recount
//   recount():     A = account; S = sum of charges over live slots
//                  CAS account: A -> {S, generation + 1, sequence + 1}; again if it failed
//   end a slot:    LIVE -> ENDING (counts no more); recount; FREE once the process is dead
//
// Three rules make it exact.
// (1) Every change of a slot's charge comes after its thread has read the account's generation, and
//     the same thread changes the account word after it. So a recount whose sum missed the change
//     of a charge, or saw one half made, either fails its CAS (the operation finished meanwhile) or
//     wins, and then the operation sees the new generation and recounts instead of adding.
// (2) A slot is freed only after a recount that began when the slot no longer counted. So a recount
//     that read a slot's word before that, and its charges after another process had taken it,
//     fails.
// (3) An operation checks that the slot still counts after it has read the generation. So it either
//     sees the end of the slot, or the recount of that end changes the generation under it.
//     (Without this rule a thread of an exiting process would give back once more what the recount
//     had given back already; the test of all orders of steps found that.)
// A process killed half-way leaves a slot that dies with it. The process that ends this slot
// recounts; if it is killed before that, the slot still says ENDING and the next process recounts.
//
// So at every instant: account.used >= sum of all reservations granted and not yet being released.
// That is what keeps the cap. Between a kill and the reclaim the account can be too high, never too
// low. The word is 16 bytes (cmpxchg16b): for a wrong success both counters would have to come
// round (2^64 changes) while one thread stands between two instructions.
//
// A recount of many slots can lose again and again while others are busy. After a few failures it
// raises `recount_turn`, and operations that see it hold off for some microseconds (bounded, and
// only a hint: if the recounting process dies, the first one to wait it out takes it down).
#pragma once

#include <cstdint>

#include "abi/region.h"
#include "base/result.h"

namespace allot::core {

// Says whether the process of a slot still runs (true) or its charges may be given back (false).
// Gets copies: `slot` holds everything but the charges. start_time 0 means that it is not known yet
// (the process is taking the slot): then the answer is whether any process with that pid exists.
// Must not call back into the ledger.
using AliveFn = bool (*)(void* context, uint32_t index, uint32_t pid, const AllotSlot& slot);

// Makes slot `index` the caller's to take: its memory safe to touch (allocated on the file system),
// its lock held. Returns 0; EAGAIN if somebody holds it, then take_slot tries the next; or an
// errno, which take_slot passes on. A slot that it takes is the last one that was prepared.
using PrepareFn = int (*)(void* context, uint32_t index);

struct SlotId {
  uint32_t index;
  uint32_t generation;
};

// Who takes a slot.
struct SlotOwner {
  uint32_t pid;
  uint64_t start_time;     // /proc/PID/stat field 22
  uint64_t pid_namespace;  // inode
  const char* command;     // may be null
  uint64_t now_unix_ns;
  const uint32_t* held = nullptr;  // AllotHeld, as it is after `prepare`
  bool another_copy = false;       // this process has a slot already that another copy of us uses
};

class Ledger {
 public:
  // `file` must be a mapped slice file that shm has checked; it outlives the ledger.
  explicit Ledger(AllotSliceFile* file) : file_(file) {}

  // Takes a slot. First ends slots that an earlier image of this process, or an earlier process
  // with the same pid, has left.
  // Errors: kFull (all slots in use: reclaim() first; or `prepare` failed, os_errno says how). One
  // thread per process; lock-free; neither allocates nor blocks (but see `prepare`).
  Result<SlotId> take_slot(const SlotOwner& owner, PrepareFn prepare = nullptr,
                           void* context = nullptr);

  // The live slot of this process, if another part of it (a second library) has taken one.
  // Errors: kNotFound. Any thread; signal-safe.
  Result<SlotId> find_slot(uint32_t pid, uint64_t start_time, uint64_t pid_namespace) const;

  // Ends the slot of the calling process and gives back its charges. Does nothing when the slot has
  // already ended. The slot stays reserved (ENDING) until the process is gone. Any thread;
  // lock-free.
  void end_slot(SlotId slot);

  // True while the slot is live and still the caller's. Any thread; signal-safe.
  bool live(SlotId slot) const;

  // Ends every slot for which `alive` returns false, and recounts if any ended. Returns how many it
  // ended. Any thread of any process of the slice; lock-free; blocks only where `alive` does.
  uint32_t reclaim(AliveFn alive, void* context);

  // Charges `bytes` if they fit below the limit. False, with nothing changed, if they do not, or if
  // the slot is no longer live. 0 bytes always fit. Any thread of the process that owns the slot;
  // lock-free; neither allocates nor blocks.
  bool reserve(SlotId slot, uint32_t gpu, AllotKind kind, uint64_t bytes);

  // Counts a request that the caller refuses its program: once, however often it tried to reserve.
  // Any thread of the process that owns the slot; lock-free.
  void count_refusal(SlotId slot, uint32_t gpu);

  // Charges `bytes` even above the limit, because the driver has taken them already. Does nothing
  // if the slot is no longer live. Threads as reserve().
  void charge(SlotId slot, uint32_t gpu, AllotKind kind, uint64_t bytes);

  // Gives back `bytes` of an earlier charge. If the slot holds less of that kind, it gives back
  // what there is and counts a fault in header.ledger_faults. Threads as reserve().
  void release(SlotId slot, uint32_t gpu, AllotKind kind, uint64_t bytes);

  // Sets the account of `gpu` to the sum of the charges of live slots. Returns that sum. Any thread
  // of any process of the slice; lock-free.
  uint64_t recount(uint32_t gpu);

  // Bytes charged on `gpu` by the whole slice / by one slot and kind (0 when it is not live). On a
  // read-only mapping too. Any thread; signal-safe.
  uint64_t used(uint32_t gpu) const;
  uint64_t charged(SlotId slot, uint32_t gpu, AllotKind kind) const;

  // Sum of the charges of the live slots for which `alive` returns true (null: all live slots):
  // what used() will be after a reclaim. Changes nothing; works on a read-only mapping too.
  uint64_t used_by_living(uint32_t gpu, AliveFn alive, void* context) const;

  // The limit in bytes. A change takes effect with the next reservation of any process. While more
  // than the limit is in use, every reservation fails. Any process that may write the file; any
  // thread.
  uint64_t limit(uint32_t gpu) const;
  void set_limit(uint32_t gpu, uint64_t bytes);

  // The one answer to "how much is there", in bytes: total = min(limit, physical_total), free =
  // min(limit - used, physical_free), never below 0. Any thread; signal-safe.
  struct View {
    uint64_t total_bytes;
    uint64_t free_bytes;
    uint64_t used_bytes;
  };
  View view(uint32_t gpu, uint64_t physical_total, uint64_t physical_free) const;

  AllotSliceFile* file() const { return file_; }

 private:
  enum class Step { kTaken, kRefused, kAgain };
  struct Dead;

  AllotSlot* own(SlotId slot) const;
  Step try_reserve(SlotId slot, uint32_t gpu, AllotKind kind, uint64_t bytes);
  void settle(uint32_t gpu, uint32_t generation, uint64_t add, uint64_t subtract);
  bool recount_within(uint32_t gpu, uint64_t bound, uint64_t* sum_out);
  uint64_t sum_of_live(uint32_t gpu) const;
  void recount_all();
  void retire(uint32_t index, uint64_t word);
  void retire_own(const SlotOwner& owner);
  AllotCounters counters_so_far(const SlotOwner& owner) const;
  void start_counters(SlotId slot, const SlotOwner& owner, const AllotCounters& before);
  bool judge(uint32_t index, AliveFn alive, void* context, Dead& dead);

  AllotSliceFile* file_;
};

}  // namespace allot::core
