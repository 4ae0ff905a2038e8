// See submit_watch.h.
#include "shim/process/submit_watch.h"

namespace allot::shim {

constinit std::atomic<uint32_t> submit_watch{0};

namespace {

constinit std::atomic<uint32_t> calls_inside{0};

}  // namespace

void watched_call_begins() {
  calls_inside.fetch_add(1, std::memory_order_relaxed);
}

void watched_call_ends() {
  calls_inside.fetch_sub(1, std::memory_order_relaxed);
}

uint32_t watched_calls_under_way() {
  return calls_inside.load(std::memory_order_relaxed);
}

void abandon_submit_watch() {
  submit_watch.store(0);
  calls_inside.store(0);
}

}  // namespace allot::shim
