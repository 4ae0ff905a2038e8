// See evict_base.h.
#include "cli/evict/evict_base.h"

#include <fcntl.h>
#include <poll.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "cli/gpus/gpu_inventory.h"
#include "cli/gpus/libraries.h"
#include "cli/output.h"
#include "cli/region/agent_view.h"
#include "cli/region/region_view.h"
#include "core/counters.h"
#include "core/shared.h"
#include "shm/living.h"
#include "sys/clock.h"

namespace allot::cli {

using core::load;

namespace {

constexpr uint64_t kHostMargin = 256ull << 20;
constexpr double kLeastBytesPerSecond = 100e6;  // a slower move is abandoned
constexpr double kMoveSeconds = 60;
constexpr int kLookMs = 2;
constexpr double kShownSeconds = 0.005;  // less is shown as 0.00 s
constexpr double kRatedSeconds = 0.05;   // a rate over less than that says little
constexpr int kEndingSignals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

// Only one command at a time works on a slice.
sys::Fd lock_file(const std::string& command, const std::string& path, const std::string& name) {
  auto file = sys::open_file(sys::Root{}, path.c_str(), O_RDONLY | O_NOFOLLOW);
  if (!file) refuse("{}: {}: {}", command, path, describe(file.error()));
  if (!sys::lock_now(file->get())) {
    throw NotNow(fmt::format("{}: another evict or restore of '{}' is under way; wait for it",
                             command, name));
  }
  return std::move(*file);
}

uint64_t number_in(const std::string& path) {
  std::ifstream file(path);
  uint64_t value = UINT64_MAX;
  if (!(file >> value)) return UINT64_MAX;  // "max", or no such file
  return value;
}

void read_charges(const AllotSliceFile& file, uint32_t slot, Target* target) {
  const uint32_t gpus = std::min(load(file.header.gpu_count), ALLOT_MAX_GPUS);
  const bool obeys = load(file.swaps[slot].owner) == target->word;
  for (uint32_t g = 0; g < gpus; ++g) {
    for (unsigned kind = 0; kind < ALLOT_KINDS; ++kind) {
      const uint64_t bytes = load(file.slots[slot].charges[g][kind]);
      target->by_kind[kind] += bytes;
      target->on_gpu[g] += bytes;
    }
    target->process.bytes += target->on_gpu[g];
    if (obeys) target->movable[g] = std::min(load(file.swaps[slot].movable[g]), target->on_gpu[g]);
  }
}

}  // namespace

HoldSignals::HoldSignals() {
  sigemptyset(&set_);
  for (const int number : kEndingSignals) sigaddset(&set_, number);
  pthread_sigmask(SIG_BLOCK, &set_, &before_);
}

HoldSignals::~HoldSignals() {
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

void HoldSignals::check() const {
  sigset_t pending;
  sigemptyset(&pending);
  sigpending(&pending);
  for (const int number : kEndingSignals) {
    if (sigismember(&pending, number) == 1) refuse("interrupted");
  }
}

std::string who(const Target& target) {
  return fmt::format("{} (process {})", target.process.command, target.process.pid);
}

double move_limit(const Target& target) {
  return kMoveSeconds + static_cast<double>(target.process.bytes) / kLeastBytesPerSecond;
}

std::string within_text(double seconds) {
  return seconds < kShownSeconds ? "at once" : fmt::format("in {:.2f} s", seconds);
}

std::string speed_text(uint64_t bytes, double seconds) {
  if (bytes == 0 || seconds < kRatedSeconds) return within_text(seconds);
  return fmt::format("{}, {:.2f} GB/s", within_text(seconds),
                     static_cast<double>(bytes) / 1e9 / seconds);
}

MoveBase::MoveBase(const char* command, OpenSlice& slice, const std::string& name,
                   const MoveOptions& options, bool fast)
    : command_(command),
      slice_(slice),
      file_(*slice->file),
      name_(name),
      options_(options),
      fast_(fast),
      lock_(lock_file(command, slice.path(), name)) {}

uint32_t MoveBase::flags() const {
  return load(file_.header.flags);
}

bool MoveBase::still_there(const Target& target) const {
  return load(file_.slot_words[target.slot]) == target.word &&
         shm::Living(*slice_).slot(target.slot);
}

void MoveBase::find_targets() {
  shm::reclaim_dead(*slice_);
  const shm::Living living(*slice_);
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
          "{}: '{}': one of its processes is in another container (pid namespace); run the command "
          "there",
          command_, name_);
    }
    if (!living.slot(i)) continue;
    target.process.command =
        harmless(std::string_view(slot.command, strnlen(slot.command, sizeof slot.command)));
    read_charges(file_, i, &target);
    if (load(slot.evicted) != ALLOT_EVICTED_NOT) target.phase = Phase::kMoved;
    targets_.push_back(target);
  }
}

void MoveBase::refuse_without_host_memory(uint64_t need) const {
  uint64_t room = UINT64_MAX;
  for (const Target& target : targets_) {
    if (target.phase != Phase::kMoved) room = std::min(room, host_room(target.process.pid));
  }
  if (need + kHostMargin <= room) return;
  refuse("{}: '{}' needs {} of host memory, {} is left; nothing was changed", command_, name_,
         size_text(need + kHostMargin), size_text(room));
}

std::string MoveBase::missing_room(const PerGpu& need) const {
  if (std::all_of(need.begin(), need.end(), [](uint64_t bytes) { return bytes == 0; })) return "";
  const Inventory inventory = ask_driver(software() ? need_sim() : find_driver());
  for (const Gpu& gpu : inventory.gpus) {
    for (uint32_t g = 0; g < ALLOT_MAX_GPUS; ++g) {
      if (need[g] == 0 || !gpu.free_known || need[g] <= gpu.free_bytes) continue;
      if (memcmp(file_.gpus[g].uuid, gpu.uuid.data(), gpu.uuid.size()) != 0) continue;
      return fmt::format("'{}' needs {} on GPU {}, {} is free", name_, size_text(need[g]),
                         gpu.index, size_text(gpu.free_bytes));
    }
  }
  return "";
}

void MoveBase::flag(bool on) {
  constexpr uint32_t kAll = ALLOT_SLICE_EVICTED | ALLOT_SLICE_RETURNS | ALLOT_SLICE_EVICTED_FAST;
  uint32_t& word = file_.header.flags;
  if (on) {
    const uint32_t bits = ALLOT_SLICE_EVICTED | (options_.returns ? ALLOT_SLICE_RETURNS : 0u) |
                          (fast_ ? ALLOT_SLICE_EVICTED_FAST : 0u);
    for (const Target& target : targets_) core::store(file_.slots[target.slot].wants, 0u);
    __atomic_fetch_or(&word, bits, __ATOMIC_SEQ_CST);
  } else {
    __atomic_fetch_and(&word, ~kAll, __ATOMIC_SEQ_CST);
  }
  slice_.tell_agents();
}

bool MoveBase::wait_for_agents(bool detached) {
  const uint64_t end = sys::monotonic_ns() + static_cast<uint64_t>(options_.timeout_seconds * 1e9);
  for (;;) {
    bool all = true;
    for (const ClientView& client : read_clients(file_)) {
      const bool answered = ((client.flags & ALLOT_CLIENT_DETACHED) != 0) == detached;
      all = all && (answered || has_ended(*slice_, client));
    }
    if (all || sys::monotonic_ns() >= end) return all;
    poll(nullptr, 0, kLookMs);
  }
}

bool MoveBase::all_in(Phase phase) const {
  return std::all_of(targets_.begin(), targets_.end(),
                     [phase](const Target& target) { return target.phase == phase; });
}

bool MoveBase::any_in(Phase phase) const {
  return std::any_of(targets_.begin(), targets_.end(),
                     [phase](const Target& target) { return target.phase == phase; });
}

uint64_t MoveBase::bytes_to_move() const {
  uint64_t sum = 0;
  for (const Target& target : targets_) {
    if (target.phase != Phase::kMoved) sum += target.process.bytes;
  }
  return sum;
}

Moved MoveBase::report(uint64_t begin_ns) const {
  Moved moved;
  moved.way = fast_ ? "fast" : "driver";
  moved.seconds = static_cast<double>(sys::monotonic_ns() - begin_ns) / 1e9;
  for (const Target& target : targets_) {
    if (target.phase == Phase::kLost) continue;
    moved.processes.push_back(target.process);
    moved.bytes += target.process.bytes;
  }
  return moved;
}

Moved MoveBase::count_and_report(uint64_t begin_ns, bool out) {
  AllotHeader& header = file_.header;
  __atomic_fetch_add(out ? &header.evictions : &header.restores, 1u, __ATOMIC_RELAXED);
  for (const Target& target : targets_) {
    if (target.phase == Phase::kLost) continue;
    AllotCounters* its = core::counters_of(file_, target.slot, target.word);
    if (its == nullptr) continue;
    __atomic_fetch_add(out ? &its->evictions : &its->restores, 1u, __ATOMIC_RELAXED);
  }
  return report(begin_ns);
}

Moved MoveBase::nothing_to_do() const {
  Moved moved = report(sys::monotonic_ns());
  moved.seconds = 0;
  moved.nothing = true;
  return moved;
}

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

}  // namespace allot::cli
