// Slots: how a process enters the ledger, and how others remove it when it is gone. abi/region.h
// has the states and says who changes them. What must not happen here: a slot is freed before a
// recount without it, or while its process may still write into it.
#include <cerrno>
#include "core/ledger.h"

#include "core/counters.h"
#include "core/shared.h"

namespace allot::core {
namespace {

// How often to take a slot again after another process judged us dead while we were filling it.
constexpr uint32_t kTakeTries = 8;

uint64_t with_state(uint64_t word, AllotSlotState state) {
  return (word & ~uint64_t{0xff}) | static_cast<uint64_t>(state);
}

bool swap_word(uint64_t& word, uint64_t expected, uint64_t desired) {
  ALLOT_LEDGER_STEP();
  return cas(word, expected, desired);
}

// Copies what an AliveFn may look at. Another process may be writing, so every field is read once.
void copy_identity(const AllotSlot& from, AllotSlot& to) {
  to.start_time = load(from.start_time);
  to.pid_namespace = load(from.pid_namespace);
  to.joined_unix_ns = load(from.joined_unix_ns);
  to.execing = load(from.execing);
  to.level = load(from.level);
  to.held = load(from.held);
  for (uint32_t i = 0; i < sizeof(to.command); ++i) to.command[i] = load(from.command[i]);
  to.command[sizeof(to.command) - 1] = '\0';
}

void fill(AllotSlot& slot, const SlotOwner& owner) {
  for (auto& gpu : slot.charges) {
    for (uint64_t& charge : gpu) __atomic_store_n(&charge, uint64_t{0}, __ATOMIC_RELAXED);
  }
  store(slot.start_time, owner.start_time);
  store(slot.pid_namespace, owner.pid_namespace);
  store(slot.joined_unix_ns, owner.now_unix_ns);
  store(slot.execing, 0u);
  store(slot.level, 0u);
  store(slot.held, owner.held != nullptr ? *owner.held : uint32_t{ALLOT_HELD_BY_PID});
  store(slot.evicted, 0u);
  store(slot.wants, 0u);
  store(slot.last_work_ns, uint64_t{0});
  store(slot.unheld_gpus, 0u);
  store(slot.gpus_beyond, 0u);
  store(slot.full_tables, 0u);
  bool ended = owner.command == nullptr;
  for (uint32_t i = 0; i < sizeof(slot.command); ++i) {
    char c = ended || i == sizeof(slot.command) - 1 ? '\0' : owner.command[i];
    ended = c == '\0';
    store(slot.command[i], c);
  }
}

}  // namespace

// Slots found dead in one round, with the word each had when it was judged.
struct Ledger::Dead {
  static constexpr uint32_t kRoom = 64;
  struct Entry {
    uint32_t index;
    uint64_t ending_word;
  };
  Entry entries[kRoom];
  uint32_t count;
};

AllotSlot* Ledger::own(SlotId slot) const {
  if (slot.index >= ALLOT_MAX_SLOTS) return nullptr;
  const uint64_t word = load(file_->slot_words[slot.index]);
  if (ALLOT_SLOT_STATE(word) != ALLOT_SLOT_LIVE) return nullptr;
  if (ALLOT_SLOT_GENERATION(word) != slot.generation) return nullptr;
  return &file_->slots[slot.index];
}

bool Ledger::live(SlotId slot) const {
  return own(slot) != nullptr;
}

void Ledger::recount_all() {
  const uint32_t gpus = gpus_of(*file_);
  for (uint32_t gpu = 0; gpu < gpus; ++gpu) recount(gpu);
}

// Removes the slot whose word is `word` from the ledger and frees it. For slots whose process is
// gone.
void Ledger::retire(uint32_t index, uint64_t word) {
  uint64_t& shared = file_->slot_words[index];
  const uint64_t free_word = ALLOT_SLOT_WORD(ALLOT_SLOT_FREE, ALLOT_SLOT_GENERATION(word), 0);
  if (ALLOT_SLOT_STATE(word) == ALLOT_SLOT_TAKING) {  // was never counted
    swap_word(shared, word, free_word);
    return;
  }
  const uint64_t ending = with_state(word, ALLOT_SLOT_ENDING);
  if (word != ending && !swap_word(shared, word, ending)) return;  // another process ends it
  recount_all();
  swap_word(shared, ending, free_word);
}

// Ends slots that an earlier image of this process, or an earlier process with its pid, has left.
void Ledger::retire_own(const SlotOwner& owner) {
  const uint32_t high = slots_of(*file_);
  for (uint32_t i = 0; i < high; ++i) {
    const uint64_t word = load(file_->slot_words[i]);
    const uint8_t state = ALLOT_SLOT_STATE(word);
    if (state == ALLOT_SLOT_FREE || ALLOT_SLOT_PID(word) != owner.pid) continue;
    const uint64_t home = state == ALLOT_SLOT_TAKING ? load(file_->header.pid_namespace)
                                                     : load(file_->slots[i].pid_namespace);
    if (home != owner.pid_namespace) continue;
    const bool in_use = owner.another_copy && state == ALLOT_SLOT_LIVE &&
                        load(file_->slots[i].start_time) == owner.start_time &&
                        load(file_->slots[i].execing) == 0;
    if (!in_use) retire(i, word);
  }
}

// Those of an earlier image of this process: its slot has ended, and nobody has taken it since.
// Zeros for a process that is new here.
AllotCounters Ledger::counters_so_far(const SlotOwner& owner) const {
  AllotCounters out = {};
  const uint32_t high = slots_of(*file_);
  for (uint32_t i = 0; i < high; ++i) {
    const uint64_t word = load(file_->slot_words[i]);
    if (ALLOT_SLOT_STATE(word) != ALLOT_SLOT_FREE) continue;
    const AllotCounters& from = file_->swaps[i].counters;
    if (load(from.counted) != ALLOT_SLOT_GENERATION(word) + 1 || load(from.pid) != owner.pid ||
        load(from.start_time) != owner.start_time ||
        load(file_->slots[i].pid_namespace) != owner.pid_namespace) {
      continue;
    }
    AllotCounters copy = {};
    copy.time_used_ns = load(from.time_used_ns);
    copy.time_throttled_ns = load(from.time_throttled_ns);
    copy.frozen_ns = load(from.frozen_ns);
    copy.refused = load(from.refused);
    copy.evictions = load(from.evictions);
    copy.restores = load(from.restores);
    // Of several images the last one's, which has the most.
    if (load(file_->slot_words[i]) != word || copy.time_used_ns < out.time_used_ns) continue;
    if (copy.refused >= out.refused && copy.frozen_ns >= out.frozen_ns) out = copy;
  }
  return out;
}

void Ledger::start_counters(SlotId slot, const SlotOwner& owner, const AllotCounters& before) {
  AllotCounters& mine = file_->swaps[slot.index].counters;
  store(mine.counted, 0u);
  store(mine.pid, owner.pid);
  store(mine.start_time, owner.start_time);
  store(mine.time_used_ns, before.time_used_ns);
  store(mine.time_throttled_ns, before.time_throttled_ns);
  store(mine.frozen_ns, before.frozen_ns);
  store(mine.refused, before.refused);
  store(mine.evictions, before.evictions);
  store(mine.restores, before.restores);
  store(mine.counted, slot.generation + 1);
}

Result<SlotId> Ledger::take_slot(const SlotOwner& owner, PrepareFn prepare, void* context) {
  retire_own(owner);
  const AllotCounters before = counters_so_far(owner);
  // A process of another pid namespace writes no pid until its slot names that namespace: nobody
  // could check whether it lives.
  const bool known_home = owner.pid_namespace == load(file_->header.pid_namespace);
  uint32_t tries = 0;
  for (uint32_t i = 0; i < ALLOT_MAX_SLOTS; ++i) {
    uint64_t& shared = file_->slot_words[i];
    const uint64_t word = load(shared);
    if (ALLOT_SLOT_STATE(word) != ALLOT_SLOT_FREE) continue;
    const uint32_t generation = (ALLOT_SLOT_GENERATION(word) + 1) & 0xffffffu;
    const uint64_t taking =
        ALLOT_SLOT_WORD(ALLOT_SLOT_TAKING, generation, known_home ? owner.pid : 0);
    if (prepare != nullptr) {
      const int error = prepare(context, i);
      if (error == EAGAIN) continue;
      if (error != 0) return fail(Errc::kFull, error);
    }
    if (!swap_word(shared, word, taking)) continue;
    raise_to(file_->header.slots_high, i + 1);
    fill(file_->slots[i], owner);
    start_counters({i, generation}, owner, before);
    const uint64_t live_word = ALLOT_SLOT_WORD(ALLOT_SLOT_LIVE, generation, owner.pid);
    if (swap_word(shared, taking, live_word)) return SlotId{i, generation};
    if (++tries == kTakeTries) break;
  }
  return fail(Errc::kFull);
}

Result<SlotId> Ledger::find_slot(uint32_t pid, uint64_t start_time, uint64_t pid_namespace) const {
  const uint32_t high = slots_of(*file_);
  for (uint32_t i = 0; i < high; ++i) {
    const uint64_t word = load(file_->slot_words[i]);
    if (ALLOT_SLOT_STATE(word) != ALLOT_SLOT_LIVE || ALLOT_SLOT_PID(word) != pid) continue;
    const AllotSlot& slot = file_->slots[i];
    if (load(slot.start_time) == start_time && load(slot.pid_namespace) == pid_namespace) {
      return SlotId{i, ALLOT_SLOT_GENERATION(word)};
    }
  }
  return fail(Errc::kNotFound);
}

void Ledger::end_slot(SlotId slot) {
  if (slot.index >= ALLOT_MAX_SLOTS) return;
  uint64_t& shared = file_->slot_words[slot.index];
  const uint64_t word = load(shared);
  if (ALLOT_SLOT_STATE(word) != ALLOT_SLOT_LIVE) return;
  if (ALLOT_SLOT_GENERATION(word) != slot.generation) return;
  if (swap_word(shared, word, with_state(word, ALLOT_SLOT_ENDING))) recount_all();
}

// Checks one slot. A dead one is freed (TAKING), or set to ENDING and recorded. True if it ended
// now.
bool Ledger::judge(uint32_t index, AliveFn alive, void* context, Dead& dead) {
  uint64_t& shared = file_->slot_words[index];
  const uint64_t word = load(shared);
  const uint8_t state = ALLOT_SLOT_STATE(word);
  const uint32_t pid = ALLOT_SLOT_PID(word);
  AllotSlot copy = {};
  if (state == ALLOT_SLOT_TAKING) {
    copy.pid_namespace = load(file_->header.pid_namespace);
    if (pid == 0) {  // its lock alone says whether it lives
      copy.held = load(file_->header.held);
      if (copy.held != ALLOT_HELD_BY_LOCK) return false;
    }
    if (!alive(context, index, pid, copy)) retire(index, word);
    return false;
  }
  if (state != ALLOT_SLOT_LIVE && state != ALLOT_SLOT_ENDING) return false;
  copy_identity(file_->slots[index], copy);
  if (alive(context, index, pid, copy)) return false;
  const uint64_t ending = with_state(word, ALLOT_SLOT_ENDING);
  if (word != ending && !swap_word(shared, word, ending)) return false;
  dead.entries[dead.count++] = {index, ending};
  return true;
}

uint32_t Ledger::reclaim(AliveFn alive, void* context) {
  uint32_t ended = 0;
  const uint32_t high = slots_of(*file_);
  for (uint32_t i = 0; i < high;) {
    Dead dead;
    dead.count = 0;
    for (; i < high && dead.count < Dead::kRoom; ++i) {
      if (judge(i, alive, context, dead)) ++ended;
    }
    if (dead.count == 0) continue;
    recount_all();
    for (uint32_t k = 0; k < dead.count; ++k) {
      const Dead::Entry& entry = dead.entries[k];
      const uint32_t generation = ALLOT_SLOT_GENERATION(entry.ending_word);
      swap_word(file_->slot_words[entry.index], entry.ending_word,
                ALLOT_SLOT_WORD(ALLOT_SLOT_FREE, generation, 0));
    }
  }
  return ended;
}

uint64_t Ledger::used_by_living(uint32_t gpu, AliveFn alive, void* context) const {
  if (gpu >= ALLOT_MAX_GPUS) return 0;
  if (alive == nullptr) return sum_of_live(gpu);
  uint64_t sum = 0;
  const uint32_t high = slots_of(*file_);
  for (uint32_t i = 0; i < high; ++i) {
    const uint64_t word = load(file_->slot_words[i]);
    if (ALLOT_SLOT_STATE(word) != ALLOT_SLOT_LIVE) continue;
    AllotSlot copy = {};
    copy_identity(file_->slots[i], copy);
    if (!alive(context, i, ALLOT_SLOT_PID(word), copy)) continue;
    for (const uint64_t& charge : file_->slots[i].charges[gpu]) {
      sum = saturating_add(sum, load(charge));
    }
  }
  return sum;
}

}  // namespace allot::core
