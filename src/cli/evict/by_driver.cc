// Moves a slice by the driver's checkpoint calls (evict.h).
#include <algorithm>

#include "cli/evict/evict_base.h"
#include "cli/gpus/gpu_inventory.h"
#include "cli/output.h"
#include "core/shared.h"
#include "sys/clock.h"

namespace allot::cli {
namespace {

using core::load;

class Move : MoveBase {
 public:
  Move(const char* command, OpenSlice& slice, const std::string& name, const MoveOptions& options)
      : MoveBase(command, slice, name, options, false),
        driver_(software() ? need_sim() : find_driver()) {}

  Moved evict();
  Moved restore();

 private:
  void ask_states();
  void refuse_what_cannot_move() const;
  void refuse_without_room() const;
  void lock_all();
  void move_all_out();
  void move_all_in();
  void unlock_all();
  void undo_evict();
  void undo_restore();
  void mark(const Target& target, bool evicted) {
    if (load(file_.slot_words[target.slot]) == target.word) {
      const AllotEvicted now = evicted ? ALLOT_EVICTED_DRIVER : ALLOT_EVICTED_NOT;
      core::store(file_.slots[target.slot].evicted, static_cast<uint32_t>(now));
    }
  }
  std::string lost_text() const;

  CheckpointDriver driver_;
};

// The driver's word counts, not what a killed command may have left in the file. Processes that the
// driver does not know and that hold nothing have nothing to move.
void Move::ask_states() {
  driver_.start();
  for (Target& target : targets_) {
    CUprocessState state = CU_PROCESS_STATE_RUNNING;
    CheckpointAnswer answer;
    if (driver_.state(target.process.pid, &state, &answer)) {
      target.phase = state == CU_PROCESS_STATE_LOCKED         ? Phase::kLocked
                     : state == CU_PROCESS_STATE_CHECKPOINTED ? Phase::kMoved
                     : state == CU_PROCESS_STATE_FAILED       ? Phase::kLost
                                                              : Phase::kRuns;
      continue;
    }
    if (answer.late)
      refuse("{}: the driver does not answer for {}; nothing was changed", command_, who(target));
    if (target.process.bytes > 0 && still_there(target)) {
      refuse("{}: {}: {}; nothing was changed", command_, who(target), cuda_text(answer.result));
    }
    target.word = 0;
  }
  std::erase_if(targets_, [](const Target& target) { return target.word == 0; });
  for (const Target& target : targets_) {
    if (target.phase != Phase::kLost) continue;
    refuse("{}: an earlier move broke {}; end it (kill {})", command_, who(target),
           target.process.pid);
  }
}

void Move::refuse_what_cannot_move() const {
  for (const Target& target : targets_) {
    const uint64_t managed = target.by_kind[ALLOT_KIND_MANAGED];
    const uint64_t imported = target.by_kind[ALLOT_KIND_IMPORT];
    if (managed > 0) {
      refuse(
          "evict: {} has {} of managed memory (cuMemAllocManaged), which the driver cannot move; "
          "nothing was changed. 'allot freeze {}' pauses the slice in place",
          who(target), size_text(managed), name_);
    }
    if (imported > 0) {
      refuse(
          "evict: {} uses {} of another slice's memory (IPC), which the driver cannot move; "
          "nothing was changed",
          who(target), size_text(imported));
    }
  }
  for (const AllotExport& entry : file_.exports) {
    const uint32_t slot = load(entry.slot);
    if (load(entry.handle_hash) == 0) continue;
    for (const Target& target : targets_) {
      if (target.slot != slot || ALLOT_SLOT_GENERATION(target.word) != load(entry.slot_generation))
        continue;
      refuse(
          "evict: {} shares memory with other processes (an IPC or VMM handle), which the driver "
          "cannot move; nothing was changed",
          who(target));
    }
  }
}

// Compares with the free memory that the driver reports: a restore that fails there may kill the
// process.
void Move::refuse_without_room() const {
  PerGpu need{};
  for (const Target& target : targets_) {
    if (target.phase != Phase::kMoved) continue;
    for (uint32_t g = 0; g < ALLOT_MAX_GPUS; ++g) need[g] += target.on_gpu[g];
  }
  const std::string missing = missing_room(need);
  if (missing.empty()) return;
  refuse("restore: {}; it stays evicted. End or evict something else there, then try again",
         missing);
}

void Move::lock_all() {
  const uint64_t end = sys::monotonic_ns() + static_cast<uint64_t>(options_.timeout_seconds * 1e9);
  for (Target& target : targets_) {
    signals_.check();
    if (target.phase != Phase::kRuns) continue;
    const uint64_t now = sys::monotonic_ns();
    const double left = now < end ? static_cast<double>(end - now) / 1e9 : 0.001;
    const CheckpointAnswer answer = driver_.lock(target.process.pid, left);
    target.process.lock_seconds = answer.seconds;
    if (answer.ok()) {
      target.phase = Phase::kLocked;
    } else if (still_there(target)) {
      refuse("the work of {} did not end within {} s ({})", who(target), options_.timeout_seconds,
             answer.late ? "the driver did not answer" : cuda_text(answer.result));
    } else {
      target.phase = Phase::kLost;
    }
  }
}

void Move::move_all_out() {
  for (Target& target : targets_) {
    signals_.check();
    if (target.phase != Phase::kLocked) continue;
    const CheckpointAnswer answer = driver_.checkpoint(target.process.pid, move_limit(target));
    target.process.move_seconds = answer.seconds;
    if (answer.ok()) {
      target.phase = Phase::kMoved;
      mark(target, true);
      options_.say(fmt::format("{}: {}: {} to the host {}; waited {:.2f} s for its work", name_,
                               who(target), size_text(target.process.bytes),
                               speed_text(target.process.bytes, answer.seconds),
                               target.process.lock_seconds));
    } else if (still_there(target)) {
      refuse("{}: its memory could not be moved ({})", who(target),
             answer.late ? fmt::format("no answer within {:.0f} s", move_limit(target))
                         : cuda_text(answer.result));
    } else {
      target.phase = Phase::kLost;  // ended meanwhile; its charge ends with its slot
    }
  }
}

void Move::move_all_in() {
  for (Target& target : targets_) {
    signals_.check();
    if (target.phase != Phase::kMoved) continue;
    const CheckpointAnswer answer = driver_.restore(target.process.pid, move_limit(target));
    target.process.move_seconds = answer.seconds;
    if (answer.ok()) {
      target.phase = Phase::kLocked;
      mark(target, false);
      options_.say(fmt::format("{}: {}: {} to the GPU {}", name_, who(target),
                               size_text(target.process.bytes),
                               speed_text(target.process.bytes, answer.seconds)));
    } else if (still_there(target)) {
      refuse("{}: its memory could not be brought back ({})", who(target),
             answer.late ? fmt::format("no answer within {:.0f} s", move_limit(target))
                         : cuda_text(answer.result));
    } else {
      target.phase = Phase::kLost;
    }
  }
}

void Move::unlock_all() {
  for (Target& target : targets_) {
    if (target.phase != Phase::kLocked) continue;
    const CheckpointAnswer answer = driver_.unlock(target.process.pid);
    target.process.lock_seconds = answer.seconds;
    if (answer.ok()) {
      target.phase = Phase::kRuns;
    } else {
      target.phase = Phase::kLost;
      if (still_there(target))
        options_.say(fmt::format("{}: {} could not be resumed: {}", name_, who(target),
                                 answer.late ? "no answer" : cuda_text(answer.result)));
    }
  }
}

std::string Move::lost_text() const {
  std::string text;
  for (const Target& target : targets_) {
    if (target.phase != Phase::kLost || !still_there(target)) continue;
    text += fmt::format("; the move broke {}; end it", who(target));
  }
  return text;
}

// Lets every process run again, as far as the driver can.
void Move::undo_evict() {
  for (Target& target : targets_) {
    CUprocessState state = CU_PROCESS_STATE_RUNNING;
    if (!driver_.state(target.process.pid, &state)) continue;
    if (state == CU_PROCESS_STATE_CHECKPOINTED &&
        driver_.restore(target.process.pid, move_limit(target)).ok()) {
      mark(target, false);
      state = CU_PROCESS_STATE_LOCKED;
    }
    target.phase = state == CU_PROCESS_STATE_RUNNING  ? Phase::kRuns
                   : state == CU_PROCESS_STATE_LOCKED ? Phase::kLocked
                   : state == CU_PROCESS_STATE_FAILED ? Phase::kLost
                                                      : Phase::kMoved;
  }
  if (!any_in(Phase::kMoved)) flag(false);
  unlock_all();
}

// Moves what came back to the host again: a slice is evicted as a whole.
void Move::undo_restore() {
  for (Target& target : targets_) {
    if (target.phase != Phase::kLocked) continue;
    if (driver_.checkpoint(target.process.pid, move_limit(target)).ok()) {
      target.phase = Phase::kMoved;
      mark(target, true);
    }
  }
}

Moved Move::evict() {
  const uint64_t begin = sys::monotonic_ns();
  find_targets();
  ask_states();
  if (flagged() && all_in(Phase::kMoved)) {
    return nothing_to_do();
  }
  refuse_what_cannot_move();
  refuse_without_host_memory(bytes_to_move());
  flag(true);
  try {
    if (!wait_for_agents(true)) {
      refuse("one of its processes is not responding (stopped by a signal?)");
    }
    lock_all();
    move_all_out();
  } catch (const Failure& failure) {
    undo_evict();
    refuse("evict: {}; {}{}", failure.line(),
           flagged()
               ? fmt::format("part of '{}' is still on the host: 'allot restore {}'", name_, name_)
               : fmt::format("'{}' keeps running", name_),
           lost_text());
  }
  return count_and_report(begin, true);
}

Moved Move::restore() {
  const uint64_t begin = sys::monotonic_ns();
  find_targets();
  ask_states();
  if (!flagged() && all_in(Phase::kRuns)) {
    return nothing_to_do();
  }
  if (!flagged()) flag(true);  // left by a command that was killed
  refuse_without_room();
  try {
    move_all_in();
  } catch (const Failure& failure) {
    undo_restore();
    refuse("restore: {}; '{}' stays evicted{}", failure.line(), name_, lost_text());
  }
  go_on([this] { unlock_all(); });
  return count_and_report(begin, false);
}

}  // namespace

Moved evict_by_driver(OpenSlice& slice, const std::string& name, const MoveOptions& options) {
  return Move("evict", slice, name, options).evict();
}

Moved restore_by_driver(OpenSlice& slice, const std::string& name, const MoveOptions& options) {
  return Move("restore", slice, name, options).restore();
}

}  // namespace allot::cli
