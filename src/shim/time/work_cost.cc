// See work_cost.h.
#include "shim/time/work_cost.h"

#include "abi/region.h"
#include "shim/time/tables.h"

namespace allot::shim {
namespace {

constexpr uint32_t kPlaces = 4096;
constexpr uint32_t kProbes = 16;
constexpr uint32_t kFirst = 4;   // launches of a work that are all measured
constexpr uint32_t kEvery = 32;  // later: one in so many
constexpr uint32_t kSoon = 4;    // after a surprise (half or twice as long): so many launches later
constexpr uint64_t kMatters = 20'000;  // ns; being off by less is no surprise

constinit WorkCost places[kPlaces] = {};

}  // namespace

WorkCost* cost_of(uint64_t work) {
  const uint64_t hash = (work * 0x9E3779B97F4A7C15ull) >> 40;
  for (uint32_t i = 0; i < kProbes; ++i) {
    WorkCost& place = places[(hash + i) & (kPlaces - 1)];
    uint64_t known = place.work.load(std::memory_order_relaxed);
    if (known == 0 && place.work.compare_exchange_strong(known, work)) return &place;
    if (known == work) return &place;
  }
  table_full(ALLOT_TABLE_COSTS);
  return nullptr;
}

bool measure_this(WorkCost& cost) {
  const uint32_t launch = cost.launches.fetch_add(1, std::memory_order_relaxed);
  return launch < kFirst || launch % kEvery == 0;
}

// Up by half of the difference, down by a quarter: too much in flight is worse than too little.
void learn_cost(WorkCost& cost, uint64_t ns) {
  const uint64_t known = cost.ns.load(std::memory_order_relaxed);
  uint64_t next = ns;
  if (known != 0) next = ns > known ? known + (ns - known) / 2 : known - (known - ns) / 4;
  cost.ns.store(next == 0 ? 1 : next, std::memory_order_relaxed);
  const uint64_t off = ns > known ? ns - known : known - ns;
  if (known != 0 && off > kMatters && (ns > 2 * known || ns < known / 2)) {
    cost.launches.store(kEvery - kSoon, std::memory_order_relaxed);
  }
}

void abandon_costs() {
  for (WorkCost& place : places) {
    place.work.store(0, std::memory_order_relaxed);
    place.ns.store(0, std::memory_order_relaxed);
    place.launches.store(0, std::memory_order_relaxed);
  }
}

}  // namespace allot::shim
