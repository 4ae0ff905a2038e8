// See turns.h.
#include "turns.h"

#include <algorithm>

namespace allot::sim {
namespace {

// A waiter lets the holder come to its end by itself for this long.
constexpr int64_t kGraceNs = 300'000;
// The least that a holder is granted while nobody waits: its thread then need not wake for each
// timeslice.
constexpr int64_t kAloneNs = 10'000'000;

int64_t timeslice_ns(const Group& group) {
  return static_cast<int64_t>(group.timeslice_us.load()) * 1000;
}

}  // namespace

SwitchCosts SwitchCosts::of_total(int64_t total_ns) {
  const SwitchCosts whole;
  return {total_ns * whole.change_ns / kDefaultSwitchNs,
          total_ns * whole.save_ns / kDefaultSwitchNs,
          total_ns * whole.restore_ns / kDefaultSwitchNs};
}

// The next waiting group after the current one, in turn; 0 = none, else index + 1.
uint32_t Turns::next_waiter() const {
  for (uint32_t k = 0; k < line_.high; k++) {
    const uint32_t i =
        (line_.current + k) % line_.high;  // `current` is index + 1: starts behind it
    Group& group = line_.groups[i];
    if (group.used == 0 || group.waiting == 0 || group.stopped != 0) continue;
    if (alive_(group.slot)) return i + 1;
    group.waiting = 0;
  }
  return 0;
}

// One timeslice, or as many as fill kAloneNs while nobody waits.
int64_t Turns::span_ns(const Group& group) const {
  const int64_t one = timeslice_ns(group);
  return next_waiter() != 0 ? one : (kAloneNs + one - 1) / one * one;
}

void Turns::grant(uint32_t number, int64_t now) {
  Group& group = line_.groups[number - 1];
  int64_t start = std::max(line_.free_ns, group.ready_ns);
  if (number != line_.current && line_.current != 0) {
    start += costs_.change_ns + (line_.saves != 0 ? costs_.save_ns : 0) +
             (group.cut != 0 ? costs_.restore_ns : 0);
  }
  start = std::max(start, now - kMaxLagNs);
  line_.current = number;
  line_.running = 1;
  line_.saves = 0;
  group.cut = 0;
  group.waiting = 0;
  group.grant_ns = start;
  group.laid_ns = start;
  group.end_ns = start + span_ns(group);
  group.grant++;
  wake_(group);
}

void Turns::ask(uint32_t index, int64_t ready_ns, int64_t now) {
  Group& group = line_.groups[index];
  group.ready_ns = ready_ns;
  group.waiting = 1;
  settle(now);
  if (line_.running == 0 || line_.current == index + 1 || group.waiting == 0 || group.stopped != 0)
    return;
  // The holder leaves at the end of the timeslice in which the waiter became ready, if its work
  // since is still under way: what has been told to be done stays done.
  Group& holder = line_.groups[line_.current - 1];
  const int64_t one = timeslice_ns(holder);
  const int64_t from = std::max<int64_t>(ready_ns, holder.laid_ns) - holder.grant_ns;
  const int64_t end = holder.grant_ns + std::max<int64_t>(1, (from + one - 1) / one) * one;
  if (end >= holder.end_ns) return;
  holder.end_ns = end;
  wake_(holder);
}

void Turns::leave(int64_t at, int64_t now, bool in_kernel) {
  if (line_.running != 0) {
    Group& group = line_.groups[line_.current - 1];
    line_.free_ns = std::max(line_.free_ns, at);
    group.usage.add(group.grant_ns, at);
    line_.usage.add(group.grant_ns, at);
    group.ended_ns = at;
    group.over = group.grant.load();
    group.cut = line_.saves = in_kernel ? 1 : 0;
    line_.running = 0;
  }
  if (const uint32_t next = next_waiter()) grant(next, now);
}

bool Turns::go_on(uint32_t index, int64_t now, bool in_kernel) {
  Group& group = line_.groups[index];
  const int64_t end = group.end_ns;
  if (next_waiter() != 0) {
    leave(std::max<int64_t>(end, group.laid_ns), now, in_kernel);
    return false;
  }
  group.usage.add(group.grant_ns, end);
  line_.usage.add(group.grant_ns, end);
  group.grant_ns = std::max(end, now - kMaxLagNs);
  group.end_ns = group.grant_ns + span_ns(group);
  return true;
}

void Turns::settle(int64_t now) {
  if (line_.running == 0) return leave(0, now, false);
  const Group& holder = line_.groups[line_.current - 1];
  if (holder.used != 0 && now < holder.end_ns + kGraceNs) return;
  if (next_waiter() != 0) leave(std::min<int64_t>(now, holder.end_ns), now, true);
}

}  // namespace allot::sim
