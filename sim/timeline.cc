// Locks, sleeps and wakes around the decisions of turns.h.
#include "timeline.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "turns.h"

namespace allot::sim {
namespace {

Timeline& line_of(uint32_t gpu) {
  return machine()->gpus[gpu].timeline;
}

// A waiter looks again so long after the holder's end.
constexpr int64_t kLookNs = 300'000;

class LineLock {
 public:
  explicit LineLock(Timeline& line) : line_(line) { lock_robust(&line.lock); }
  ~LineLock() { pthread_mutex_unlock(&line_.lock); }
  LineLock(const LineLock&) = delete;
  LineLock& operator=(const LineLock&) = delete;

 private:
  Timeline& line_;
};

void ring(Group& group) {
  group.wake_seq.fetch_add(1);
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&group.wake_seq), FUTEX_WAKE, INT32_MAX, nullptr,
          nullptr, 0);
}

void wait_for_wake(Group& group, uint32_t seen, int64_t until_ns) {
  timespec t{until_ns / 1'000'000'000, until_ns % 1'000'000'000};
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&group.wake_seq), FUTEX_WAIT_BITSET, seen, &t,
          nullptr, FUTEX_BITSET_MATCH_ANY);
}

Turns turns_of(Timeline& line) {
  static const SwitchCosts costs = [] {
    const char* text = getenv("ALLOT_SIM_SWITCH_US");
    return SwitchCosts::of_total(text != nullptr ? strtoll(text, nullptr, 10) * 1000
                                                 : kDefaultSwitchNs);
  }();
  return {line, costs, slot_alive, ring};
}

}  // namespace

uint32_t open_group(uint32_t gpu) {
  Timeline& line = line_of(gpu);
  LineLock lock(line);
  for (uint32_t i = 0; i < kMaxGroups; i++) {
    Group& group = line.groups[i];
    if (group.used != 0) continue;
    group.timeslice_us = kDefaultTimesliceUs;
    group.stopped = 0;
    group.waiting = 0;
    group.slot = my_slot();
    group.ready_ns = group.end_ns = group.resume_ns = group.laid_ns = 0;
    group.cut = 0;
    group.usage.total_ns = 0;
    for (auto& epoch : group.usage.epoch) epoch = 0;
    group.used = 1;
    line.high = std::max(line.high, i + 1);
    return i;
  }
  return UINT32_MAX;
}

void close_group(uint32_t gpu, uint32_t index) {
  Timeline& line = line_of(gpu);
  LineLock lock(line);
  Group& group = line.groups[index];
  group.waiting = 0;
  if (line.current == index + 1) {
    const int64_t now = now_ns();
    turns_of(line).leave(std::min<int64_t>(now, group.end_ns), now, false);
  }
  group.used = 0;
}

void set_timeslice(uint32_t gpu, uint32_t group, uint32_t us) {
  line_of(gpu).groups[group].timeslice_us = std::max(us, 1u);
}

void stop_group(uint32_t gpu, uint32_t index) {
  Timeline& line = line_of(gpu);
  LineLock lock(line);
  Group& group = line.groups[index];
  if (group.stopped != 0) return;
  const int64_t now = now_ns();
  group.stopped = 1;
  // The holder may be asleep or late: it finds its grant ended here, and keeps what it did until
  // then.
  Turns turns = turns_of(line);
  if (turns.held_by(index)) turns.leave(std::min<int64_t>(now, group.end_ns), now, true);
  ring(group);
}

void resume_group(uint32_t gpu, uint32_t index) {
  Timeline& line = line_of(gpu);
  LineLock lock(line);
  Group& group = line.groups[index];
  if (group.stopped == 0) return;
  group.resume_ns = now_ns();
  group.stopped = 0;
  if (group.waiting != 0) {
    turns_of(line).ask(index, std::max<int64_t>(group.ready_ns, group.resume_ns), group.resume_ns);
  } else {
    turns_of(line).settle(group.resume_ns);
  }
  ring(group);
}

void preempt_group(uint32_t gpu, uint32_t index) {
  Timeline& line = line_of(gpu);
  LineLock lock(line);
  Group& group = line.groups[index];
  if (!turns_of(line).held_by(index)) return;
  group.end_ns = std::min<int64_t>(group.end_ns, now_ns());
  ring(group);
}

void GpuHold::kick() {
  ring(line_of(gpu_).groups[group_]);
}

void GpuHold::wait_resumed(const std::atomic<bool>& quit) {
  Group& group = line_of(gpu_).groups[group_];
  while (!quit) {
    const uint32_t wake_seq = group.wake_seq;
    if (group.stopped == 0) return;
    wait_for_wake(group, wake_seq, now_ns() + 100'000'000);
  }
}

// Waits for a grant. False when `quit`.
bool GpuHold::acquire(int64_t ready_ns, const std::atomic<bool>& quit) {
  Timeline& line = line_of(gpu_);
  Group& group = line.groups[group_];
  bool asked = false;
  while (true) {
    const uint32_t wake_seq = group.wake_seq;
    int64_t until;
    {
      LineLock lock(line);
      const int64_t now = now_ns();
      if (quit) {
        group.waiting = 0;
        return false;
      }
      Turns turns = turns_of(line);
      if (!asked) {
        grant_ = group.grant;
        turns.ask(group_, std::max<int64_t>(ready_ns, group.resume_ns), now);
        asked = true;
      } else {
        turns.settle(now);
      }
      if (group.grant != grant_) {
        grant_ = group.grant;
        held_ = true;
        at_ns_ = group.grant_ns;
        return true;
      }
      const Group& holder = line.groups[line.current != 0 ? line.current - 1 : 0];
      until =
          line.running != 0 ? std::max(holder.end_ns + kLookNs, now + 50'000) : now + 20'000'000;
    }
    wait_for_wake(group, wake_seq, until);
  }
}

// At the end of the grant: on, when nobody waits. False when the GPU went to somebody else.
bool GpuHold::extend(bool in_kernel) {
  Timeline& line = line_of(gpu_);
  LineLock lock(line);
  Group& group = line.groups[group_];
  if (group.over == grant_) return held_ = false;
  const int64_t now = now_ns();
  if (!turns_of(line).go_on(group_, now, in_kernel)) return held_ = false;
  at_ns_ = std::max(at_ns_, now - kMaxLagNs);
  return true;
}

void GpuHold::idle() {
  if (!held_) return;
  Timeline& line = line_of(gpu_);
  LineLock lock(line);
  if (line.groups[group_].over != grant_) turns_of(line).leave(at_ns_, now_ns(), false);
  held_ = false;
}

int64_t GpuHold::run(int64_t duration_ns, int64_t ready_ns, const std::atomic<bool>& quit) {
  Group& group = line_of(gpu_).groups[group_];
  int64_t left = duration_ns;
  while (!quit) {
    if (!held_ && !acquire(ready_ns, quit)) break;
    const uint32_t wake_seq = group.wake_seq;
    // A grant that has ended still entitles to its stretch: what was laid out before its end
    // counts, however late this thread comes to look.
    const auto limit = [&] {
      return group.over == grant_ ? group.ended_ns.load() : group.end_ns.load();
    };
    const int64_t start = std::max(at_ns_, ready_ns);
    group.laid_ns = start;
    const int64_t target = std::min(start + left, limit());
    if (start < target || left == 0) {
      if (now_ns() < target) wait_for_wake(group, wake_seq, target);
      const int64_t reached = std::min({target, now_ns(), limit()});
      left -= std::max<int64_t>(0, reached - start);
      at_ns_ = std::max(start, reached);
      group.laid_ns = at_ns_;
      if (left <= 0) return at_ns_;
      if (reached < limit()) continue;  // it was woken early
    }
    if (!extend(left < duration_ns)) ready_ns = std::max(ready_ns, at_ns_);
  }
  return std::max(at_ns_, ready_ns);
}

}  // namespace allot::sim
