// The account of a GPU: reserve, release, recount. ledger.h has the algorithm and the reason why it
// is right. What must not happen here: a thread changes a charge and does not change the account
// word after it; a wait without a bound; an index from the file used unchecked.
#include "core/ledger.h"

#include "core/counters.h"
#include "core/shared.h"

namespace allot::core {
namespace {

// A recount that has failed this often asks the others to pause.
constexpr uint32_t kQuietAttempts = 3;
// How long they pause, in pause instructions (some 40-140 cycles each): about 10-50 us, longer than
// a recount of 500 slots, far below the 10 ms that no call may be delayed.
constexpr uint32_t kTurnPauses = 1000;
// How often a reservation starts again because a recount came between, before it gives up.
constexpr uint32_t kReserveTries = 64;

// The account word as cas16 sees it.
struct Account : Pair16 {
  uint64_t used() const { return low; }
  uint32_t generation() const { return static_cast<uint32_t>(high); }
  uint32_t sequence() const { return static_cast<uint32_t>(high >> 32); }
  Pair16 next(uint64_t used, bool recounted) const {
    uint32_t next_generation = generation() + (recounted ? 1u : 0u);
    return {used, static_cast<uint64_t>(sequence() + 1) << 32 | next_generation};
  }
};
static_assert(offsetof(AllotAccount, used_bytes) == 0 && offsetof(AllotAccount, generation) == 8 &&
              offsetof(AllotAccount, sequence) == 12 && sizeof(AllotAccount) == 16);

Account peek(const AllotGpu& gpu) {
  ALLOT_LEDGER_STEP();
  return {peek16(&gpu.account)};
}

// On failure `seen` is the value found there.
bool swap(AllotGpu& gpu, Account& seen, Pair16 desired) {
  ALLOT_LEDGER_STEP();
  return cas16(&gpu.account, seen, desired);
}

bool fits(uint64_t used, uint64_t bytes, uint64_t limit) {
  return used <= limit && bytes <= limit - used;
}

void add_charge(uint64_t* charge, uint64_t bytes) {
  ALLOT_LEDGER_STEP();
  __atomic_fetch_add(charge, bytes, __ATOMIC_SEQ_CST);
}

// Takes up to `bytes` from a charge; returns how many.
uint64_t take_charge(uint64_t* charge, uint64_t bytes) {
  ALLOT_LEDGER_STEP();
  uint64_t held = load(*charge);
  uint64_t taken;
  do {
    taken = held < bytes ? held : bytes;
  } while (!cas(*charge, held, held - taken));
  return taken;
}

// Pauses for a recount that keeps failing; see ledger.h. Bounded.
void yield_turn(AllotGpu& gpu) {
  if (__atomic_load_n(&gpu.recount_turn, __ATOMIC_RELAXED) == 0) return;
  for (uint32_t i = 0; i < kTurnPauses; ++i) {
    cpu_relax();
    if (__atomic_load_n(&gpu.recount_turn, __ATOMIC_RELAXED) == 0) return;
  }
  __atomic_store_n(&gpu.recount_turn, 0u, __ATOMIC_RELAXED);
}

bool known(uint32_t gpu, AllotKind kind) {
  return gpu < ALLOT_MAX_GPUS && static_cast<uint32_t>(kind) < ALLOT_KINDS;
}

}  // namespace

bool Ledger::reserve(SlotId slot, uint32_t gpu, AllotKind kind, uint64_t bytes) {
  if (!known(gpu, kind)) return false;
  if (bytes == 0) return live(slot);
  yield_turn(file_->gpus[gpu]);
  for (uint32_t i = 0; i < kReserveTries; ++i) {
    const Step step = try_reserve(slot, gpu, kind, bytes);
    if (step == Step::kTaken) return true;
    if (step == Step::kRefused) break;
  }
  return false;
}

void Ledger::count_refusal(SlotId slot, uint32_t gpu) {
  if (gpu >= ALLOT_MAX_GPUS) return;
  count(file_->gpus[gpu].refused, 1);
  if (slot.index >= ALLOT_MAX_SLOTS) return;
  AllotCounters* mine = counters_of(*file_, slot.index, load(file_->slot_words[slot.index]));
  if (mine != nullptr) count(mine->refused, 1);
}

Ledger::Step Ledger::try_reserve(SlotId slot, uint32_t gpu, AllotKind kind, uint64_t bytes) {
  AllotGpu& g = file_->gpus[gpu];
  Account seen = peek(g);
  AllotSlot* mine = own(slot);  // after the generation was read: rule (3)
  if (mine == nullptr || !fits(seen.used(), bytes, load(g.limit_bytes))) return Step::kRefused;
  uint64_t* charge = &mine->charges[gpu][kind];
  const uint32_t generation = seen.generation();
  add_charge(charge, bytes);
  while (seen.generation() == generation) {
    if (!fits(seen.used(), bytes, load(g.limit_bytes))) {
      take_charge(charge, bytes);
      settle(gpu, generation, 0, 0);
      return Step::kRefused;
    }
    if (swap(g, seen, seen.next(seen.used() + bytes, false))) {
      raise_to(g.peak_bytes, seen.used() + bytes);
      return Step::kTaken;
    }
  }
  // A recount came between. Our own recount includes what we charged, or finds that it is too much.
  // In that case the sum may include reservations that are half done, and only a fresh start can
  // tell.
  uint64_t sum;
  if (recount_within(gpu, load(g.limit_bytes), &sum)) {
    raise_to(g.peak_bytes, sum);
    return Step::kTaken;
  }
  take_charge(charge, bytes);
  recount(gpu);
  return Step::kAgain;
}

// Updates the account word after a charge has changed by `add` or `subtract` since `generation` was
// read. Both 0: the change was undone, but a recount may have seen it.
void Ledger::settle(uint32_t gpu, uint32_t generation, uint64_t add, uint64_t subtract) {
  AllotGpu& g = file_->gpus[gpu];
  Account seen = peek(g);
  while (seen.generation() == generation && seen.used() >= subtract) {
    uint64_t used = saturating_add(seen.used() - subtract, add);
    if (swap(g, seen, seen.next(used, false))) {
      if (add > 0) raise_to(g.peak_bytes, used);
      return;
    }
  }
  recount(gpu);
}

void Ledger::charge(SlotId slot, uint32_t gpu, AllotKind kind, uint64_t bytes) {
  if (!known(gpu, kind) || bytes == 0) return;
  yield_turn(file_->gpus[gpu]);
  const uint32_t generation = peek(file_->gpus[gpu]).generation();
  AllotSlot* mine = own(slot);
  if (mine == nullptr) return;
  add_charge(&mine->charges[gpu][kind], bytes);
  settle(gpu, generation, bytes, 0);
}

void Ledger::release(SlotId slot, uint32_t gpu, AllotKind kind, uint64_t bytes) {
  if (!known(gpu, kind) || bytes == 0) return;
  yield_turn(file_->gpus[gpu]);
  const uint32_t generation = peek(file_->gpus[gpu]).generation();
  AllotSlot* mine = own(slot);
  if (mine == nullptr) return;
  const uint64_t taken = take_charge(&mine->charges[gpu][kind], bytes);
  if (taken < bytes) __atomic_fetch_add(&file_->header.ledger_faults, 1u, __ATOMIC_RELAXED);
  if (taken > 0) settle(gpu, generation, 0, taken);
}

uint64_t Ledger::sum_of_live(uint32_t gpu) const {
  uint64_t sum = 0;
  const uint32_t high = slots_of(*file_);
  for (uint32_t i = 0; i < high; ++i) {
    ALLOT_LEDGER_STEP();
    if (ALLOT_SLOT_STATE(load(file_->slot_words[i])) != ALLOT_SLOT_LIVE) continue;
    ALLOT_LEDGER_STEP();
    for (const uint64_t& charge : file_->slots[i].charges[gpu]) {
      sum = saturating_add(sum, __atomic_load_n(&charge, __ATOMIC_ACQUIRE));
    }
  }
  return sum;
}

// Recounts; when the sum is above `bound` it publishes nothing and returns false.
bool Ledger::recount_within(uint32_t gpu, uint64_t bound, uint64_t* sum_out) {
  AllotGpu& g = file_->gpus[gpu];
  bool asked = false;
  bool within = true;
  for (uint32_t attempt = 0;; ++attempt) {
    if (attempt >= kQuietAttempts) {
      asked = true;
      __atomic_store_n(&g.recount_turn, 1u, __ATOMIC_RELAXED);
    }
    Account seen = peek(g);
    uint64_t sum = *sum_out = sum_of_live(gpu);
    within = sum <= bound;
    if (!within || swap(g, seen, seen.next(sum, true))) break;
  }
  if (asked) __atomic_store_n(&g.recount_turn, 0u, __ATOMIC_RELAXED);
  return within;
}

uint64_t Ledger::recount(uint32_t gpu) {
  if (gpu >= ALLOT_MAX_GPUS) return 0;
  uint64_t sum = 0;
  recount_within(gpu, UINT64_MAX, &sum);
  return sum;
}

uint64_t Ledger::used(uint32_t gpu) const {
  return gpu < ALLOT_MAX_GPUS ? load(file_->gpus[gpu].account.used_bytes) : 0;
}

uint64_t Ledger::charged(SlotId slot, uint32_t gpu, AllotKind kind) const {
  const AllotSlot* mine = own(slot);
  if (!known(gpu, kind) || mine == nullptr) return 0;
  return load(mine->charges[gpu][kind]);
}

uint64_t Ledger::limit(uint32_t gpu) const {
  return gpu < ALLOT_MAX_GPUS ? load(file_->gpus[gpu].limit_bytes) : 0;
}

void Ledger::set_limit(uint32_t gpu, uint64_t bytes) {
  if (gpu >= ALLOT_MAX_GPUS) return;
  store(file_->gpus[gpu].limit_bytes, bytes);
  __atomic_fetch_add(&file_->header.config_sequence, 1, __ATOMIC_SEQ_CST);
}

Ledger::View Ledger::view(uint32_t gpu, uint64_t physical_total, uint64_t physical_free) const {
  const uint64_t bound = limit(gpu);
  const uint64_t in_use = used(gpu);
  const uint64_t left = in_use < bound ? bound - in_use : 0;
  return {bound < physical_total ? bound : physical_total,
          left < physical_free ? left : physical_free, in_use};
}

}  // namespace allot::core
