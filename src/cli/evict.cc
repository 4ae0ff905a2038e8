// See evict.h.
#include "cli/evict.h"

#include <fcntl.h>
#include <poll.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>

#include "cli/failure.h"
#include "cli/gpu_inventory.h"
#include "cli/output.h"
#include "cli/seats.h"
#include "cli/tenants.h"
#include "core/shared.h"
#include "sys/clock.h"
#include "sys/file.h"

namespace allot::cli {
namespace {

using core::load;

constexpr uint64_t kHostMargin = 256ull << 20;
constexpr double kLeastBytesPerSecond = 100e6;  // of a move; slower is given up
constexpr double kMoveSeconds = 60;
constexpr int kLookMs = 2;

// A signal that would end the command waits until nothing is half done, and then counts as a failure.
class HoldSignals {
 public:
  HoldSignals() {
    sigemptyset(&set_);
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) sigaddset(&set_, number);
    pthread_sigmask(SIG_BLOCK, &set_, &before_);
  }
  ~HoldSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  HoldSignals(const HoldSignals&) = delete;
  HoldSignals& operator=(const HoldSignals&) = delete;
  void check() const {
    sigset_t pending;
    sigemptyset(&pending);
    sigpending(&pending);
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
      if (sigismember(&pending, number) == 1) refuse("interrupted");
    }
  }

 private:
  sigset_t set_, before_;
};

enum class Phase { kRuns, kLocked, kMoved, kLost };

struct Target {
  uint32_t slot = 0;
  uint64_t word = 0;
  MovedProcess process;
  std::array<uint64_t, ALLOT_MAX_GPUS> on_gpu{};
  uint64_t managed = 0;
  uint64_t imported = 0;
  Phase phase = Phase::kRuns;
};

std::string who(const Target& target) {
  return fmt::format("{} (process {})", target.process.command, target.process.pid);
}

double move_limit(const Target& target) {
  return kMoveSeconds + static_cast<double>(target.process.bytes) / kLeastBytesPerSecond;
}

bool still_there(const AllotTenantFile& file, const Target& target) {
  return load(file.slot_words[target.slot]) == target.word &&
         shm::process_alive(nullptr, target.process.pid, file.slots[target.slot]);
}

std::string speed_text(uint64_t bytes, double seconds) {
  if (seconds <= 0) return "at once";
  return fmt::format("in {:.2f} s, {:.2f} GB/s", seconds,
                     static_cast<double>(bytes) / 1e9 / seconds);
}

// One command at a time works on a slice.
sys::Fd lock_file(const std::string& command, const std::string& path, const std::string& name) {
  auto file = sys::open_file(sys::Root{}, path.c_str(), O_RDONLY | O_NOFOLLOW);
  if (!file) refuse("{}: {}: {}", command, path, describe(file.error()));
  if (!sys::lock_now(file->get())) {
    refuse("{}: another evict or restore of '{}' is under way; wait for it", command, name);
  }
  return std::move(*file);
}

class Move {
 public:
  Move(const char* command, OpenTenant& tenant, const std::string& name, const MoveOptions& options)
      : command_(command),
        tenant_(tenant),
        file_(*tenant->file),
        name_(name),
        options_(options),
        lock_(lock_file(command, tenant.path(), name)),
        driver_(software() ? need_sim() : find_driver()) {}

  Moved evict();
  Moved restore();

 private:
  bool software() const { return (load(file_.header.flags) & ALLOT_TENANT_SOFTWARE) != 0; }
  bool flagged() const { return (load(file_.header.flags) & ALLOT_TENANT_EVICTED) != 0; }
  void find_targets();
  void ask_states();
  void refuse_what_cannot_move() const;
  void refuse_without_host_memory() const;
  void refuse_without_room() const;
  void flag(bool on);
  bool wait_for_agents(bool loose);
  void lock_all();
  void move_all_out();
  void move_all_in();
  void unlock_all();
  void undo_evict();
  void undo_restore();
  void mark(const Target& target, bool evicted) {
    if (load(file_.slot_words[target.slot]) == target.word) {
      core::store(file_.slots[target.slot].evicted, evicted ? 1u : 0u);
    }
  }
  Moved report(double seconds) const;
  std::string lost_text() const;

  const char* command_;
  OpenTenant& tenant_;
  AllotTenantFile& file_;
  std::string name_;
  const MoveOptions& options_;
  sys::Fd lock_;
  HoldSignals signals_;
  CheckpointDriver driver_;
  std::vector<Target> targets_;
};

void Move::find_targets() {
  shm::reclaim_dead(*tenant_);
  const uint32_t gpus = std::min(load(file_.header.gpu_count), ALLOT_MAX_GPUS);
  const uint32_t high = std::min(load(file_.header.slots_high), ALLOT_MAX_SLOTS);
  for (uint32_t i = 0; i < high; ++i) {
    Target target;
    target.word = load(file_.slot_words[i]);
    if (ALLOT_SLOT_STATE(target.word) != ALLOT_SLOT_LIVE) continue;
    const AllotSlot& slot = file_.slots[i];
    target.slot = i;
    target.process.pid = ALLOT_SLOT_PID(target.word);
    if (load(slot.pid_namespace) != load(file_.header.pid_namespace)) {
      refuse(
          "{}: '{}': a process of it lives in another container (pid namespace), where it cannot "
          "be reached; run the command there",
          command_, name_);
    }
    if (!shm::process_alive(nullptr, target.process.pid, slot)) continue;
    target.process.command =
        harmless(std::string_view(slot.command, strnlen(slot.command, sizeof slot.command)));
    for (uint32_t g = 0; g < gpus; ++g) {
      for (unsigned kind = 0; kind < ALLOT_KINDS; ++kind) {
        const uint64_t bytes = load(slot.charges[g][kind]);
        if (kind == ALLOT_KIND_MANAGED) target.managed += bytes;
        if (kind == ALLOT_KIND_IMPORT) target.imported += bytes;
        target.on_gpu[g] += bytes;
      }
      target.process.bytes += target.on_gpu[g];
    }
    if (load(slot.evicted) != 0) target.phase = Phase::kMoved;
    targets_.push_back(target);
  }
}

// What the driver says counts, not what a command that was killed may have left in the file. Processes that
// the driver does not know, and that hold nothing, have nothing to move.
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
    if (answer.late) refuse("{}: the driver does not answer about {}", command_, who(target));
    if (target.process.bytes > 0 && still_there(file_, target)) {
      refuse("{}: {}: {}; nothing was changed", command_, who(target), cuda_text(answer.result));
    }
    target.word = 0;
  }
  std::erase_if(targets_, [](const Target& target) { return target.word == 0; });
  for (const Target& target : targets_) {
    if (target.phase != Phase::kLost) continue;
    refuse("{}: the driver has lost {} in an earlier move: it can only be ended (kill {})",
           command_, who(target), target.process.pid);
  }
}

void Move::refuse_what_cannot_move() const {
  for (const Target& target : targets_) {
    if (target.managed > 0) {
      refuse(
          "evict: {} has {} of managed memory (cuMemAllocManaged), which the driver cannot carry; "
          "nothing was changed. 'allot freeze {}' stops the slice in place",
          who(target), size_text(target.managed), name_);
    }
    if (target.imported > 0) {
      refuse(
          "evict: {} uses {} of another slice's memory (IPC), which the driver cannot carry; "
          "nothing was changed",
          who(target), size_text(target.imported));
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
          "cannot carry; nothing was changed",
          who(target));
    }
  }
}

void Move::refuse_without_host_memory() const {
  uint64_t need = kHostMargin;
  uint64_t room = UINT64_MAX;
  for (const Target& target : targets_) {
    if (target.phase == Phase::kMoved) continue;
    need += target.process.bytes;
    room = std::min(room, host_room(target.process.pid));
  }
  if (need <= room) return;
  refuse("evict: '{}' needs {} of host memory, {} are left; nothing was changed", name_,
         size_text(need), size_text(room));
}

// By what the driver says is free on the card: a restore that fails there may cost the process.
void Move::refuse_without_room() const {
  std::array<uint64_t, ALLOT_MAX_GPUS> need{};
  for (const Target& target : targets_) {
    if (target.phase != Phase::kMoved) continue;
    for (uint32_t g = 0; g < ALLOT_MAX_GPUS; ++g) need[g] += target.on_gpu[g];
  }
  if (std::all_of(need.begin(), need.end(), [](uint64_t bytes) { return bytes == 0; })) return;
  const Inventory inventory = ask_driver(software() ? need_sim() : find_driver());
  for (const Gpu& gpu : inventory.gpus) {
    for (uint32_t g = 0; g < ALLOT_MAX_GPUS; ++g) {
      if (need[g] == 0 || !gpu.free_known || need[g] <= gpu.free_bytes) continue;
      if (memcmp(file_.gpus[g].uuid, gpu.uuid.data(), gpu.uuid.size()) != 0) continue;
      refuse(
          "restore: '{}' needs {} on GPU {}, {} are free; it stays evicted. End or evict something "
          "else there, then try again",
          name_, size_text(need[g]), gpu.index, size_text(gpu.free_bytes));
    }
  }
}

void Move::flag(bool on) {
  uint32_t& flags = file_.header.flags;
  if (on) {
    const uint32_t bits = ALLOT_TENANT_EVICTED | (options_.returns ? ALLOT_TENANT_RETURNS : 0u);
    for (const Target& target : targets_) core::store(file_.slots[target.slot].wants, 0u);
    __atomic_fetch_or(&flags, bits, __ATOMIC_SEQ_CST);
  } else {
    __atomic_fetch_and(&flags, ~(ALLOT_TENANT_EVICTED | ALLOT_TENANT_RETURNS), __ATOMIC_SEQ_CST);
  }
  tenant_.tell_agents();
}

// Until all agents have let go, or hold again. Processes that have none or that end are not waited for.
bool Move::wait_for_agents(bool loose) {
  const uint64_t end = sys::monotonic_ns() + static_cast<uint64_t>(options_.timeout_seconds * 1e9);
  for (;;) {
    bool all = true;
    for (const SeatView& seat : read_seats(file_)) {
      const bool answered = ((seat.flags & ALLOT_SEAT_LOOSE) != 0) == loose;
      all = all && (answered || has_ended(file_, seat));
    }
    if (all || sys::monotonic_ns() >= end) return all;
    poll(nullptr, 0, kLookMs);
  }
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
    } else if (still_there(file_, target)) {
      refuse("{} did not stop within {} s ({})", who(target), options_.timeout_seconds,
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
    } else if (still_there(file_, target)) {
      refuse("{}: its memory could not be moved ({})", who(target),
             answer.late ? fmt::format("no answer within {:.0f} s", move_limit(target))
                         : cuda_text(answer.result));
    } else {
      target.phase = Phase::kLost;  // ended meanwhile; its charge goes with its slot
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
      options_.say(fmt::format("{}: {}: {} to the card {}", name_, who(target),
                               size_text(target.process.bytes),
                               speed_text(target.process.bytes, answer.seconds)));
    } else if (still_there(file_, target)) {
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
      if (still_there(file_, target))
        options_.say(fmt::format("{}: {} could not be let go: {}", name_, who(target),
                                 answer.late ? "no answer" : cuda_text(answer.result)));
    }
  }
}

std::string Move::lost_text() const {
  std::string text;
  for (const Target& target : targets_) {
    if (target.phase != Phase::kLost || !still_there(file_, target)) continue;
    text += fmt::format("; the driver has lost {}, it can only be ended", who(target));
  }
  return text;
}

// Every process runs again, as far as the driver does it.
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
  const bool moved = std::any_of(targets_.begin(), targets_.end(),
                                 [](const Target& t) { return t.phase == Phase::kMoved; });
  if (!moved) flag(false);
  unlock_all();
}

// What came back goes to the host again: a slice is evicted as a whole.
void Move::undo_restore() {
  for (Target& target : targets_) {
    if (target.phase != Phase::kLocked) continue;
    if (driver_.checkpoint(target.process.pid, move_limit(target)).ok()) {
      target.phase = Phase::kMoved;
      mark(target, true);
    }
  }
}

Moved Move::report(double seconds) const {
  Moved moved;
  moved.seconds = seconds;
  for (const Target& target : targets_) {
    if (target.phase == Phase::kLost) continue;
    moved.processes.push_back(target.process);
    moved.bytes += target.process.bytes;
  }
  return moved;
}

Moved Move::evict() {
  const uint64_t begin = sys::monotonic_ns();
  find_targets();
  ask_states();
  const bool all_moved = std::all_of(targets_.begin(), targets_.end(),
                                     [](const Target& t) { return t.phase == Phase::kMoved; });
  if (flagged() && all_moved) {
    Moved moved = report(0);
    moved.nothing = true;
    return moved;
  }
  refuse_what_cannot_move();
  refuse_without_host_memory();
  flag(true);
  try {
    if (!wait_for_agents(true)) {
      refuse("an agent of it does not answer (is a process stopped by a signal?)");
    }
    lock_all();
    move_all_out();
  } catch (const Failure& failure) {
    undo_evict();
    refuse("evict: {}; {}{}", failure.line(),
           flagged()
               ? fmt::format("part of '{}' is still on the host: 'allot restore {}'", name_, name_)
               : fmt::format("'{}' runs on", name_),
           lost_text());
  }
  return report(static_cast<double>(sys::monotonic_ns() - begin) / 1e9);
}

Moved Move::restore() {
  const uint64_t begin = sys::monotonic_ns();
  find_targets();
  ask_states();
  const bool all_run = std::all_of(targets_.begin(), targets_.end(),
                                   [](const Target& t) { return t.phase == Phase::kRuns; });
  if (!flagged() && all_run) {
    Moved moved = report(0);
    moved.nothing = true;
    return moved;
  }
  if (!flagged()) flag(true);  // left by a command that was killed
  refuse_without_room();
  try {
    move_all_in();
  } catch (const Failure& failure) {
    undo_restore();
    refuse("restore: {}; '{}' stays evicted{}", failure.line(), name_, lost_text());
  }
  // Agents first: what is to be held is held before the programs go on.
  flag(false);
  const bool held = wait_for_agents(false);
  unlock_all();
  if (!held) options_.say(fmt::format("{}: an agent of it does not answer yet", name_));
  return report(static_cast<double>(sys::monotonic_ns() - begin) / 1e9);
}

uint64_t number_in(const std::string& path) {
  std::ifstream file(path);
  uint64_t value = UINT64_MAX;
  if (!(file >> value)) return UINT64_MAX;  // "max", or no such file
  return value;
}

}  // namespace

uint64_t host_room(uint32_t pid) {
  uint64_t room = UINT64_MAX;
  std::ifstream meminfo("/proc/meminfo");
  for (std::string key; meminfo >> key;) {
    uint64_t kib = 0;
    if (key == "MemAvailable:" && meminfo >> kib) room = kib * 1024;
    meminfo.ignore(256, '\n');
  }
  std::ifstream groups("/proc/" + std::to_string(pid) + "/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (!line.starts_with("0::/")) continue;
    for (std::string path = line.substr(3); path.size() > 1; path.resize(path.rfind('/'))) {
      const uint64_t most = number_in("/sys/fs/cgroup" + path + "/memory.max");
      const uint64_t used = number_in("/sys/fs/cgroup" + path + "/memory.current");
      if (most == UINT64_MAX || used == UINT64_MAX) continue;
      room = std::min(room, most > used ? most - used : 0);
    }
  }
  return room;
}

Moved evict(OpenTenant& tenant, const std::string& name, const MoveOptions& options) {
  return Move("evict", tenant, name, options).evict();
}

Moved restore(OpenTenant& tenant, const std::string& name, const MoveOptions& options) {
  return Move("restore", tenant, name, options).restore();
}

}  // namespace allot::cli
