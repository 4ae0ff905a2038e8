// See tables.h.
#include "shim/time/tables.h"

#include <atomic>

#include "abi/region.h"

namespace allot::shim {
namespace {

constinit std::atomic<uint32_t> full{0};

}  // namespace

void table_full(uint32_t table) {
  if ((full.load(std::memory_order_relaxed) & table) != table) {
    full.fetch_or(table, std::memory_order_relaxed);
  }
}

void table_has_room(uint32_t table) {
  if ((full.load(std::memory_order_relaxed) & table) != 0) {
    full.fetch_and(~table, std::memory_order_relaxed);
  }
}

uint32_t full_tables() {
  return full.load(std::memory_order_relaxed);
}

void forget_full_tables() {
  full.store(0, std::memory_order_relaxed);
}

}  // namespace allot::shim
