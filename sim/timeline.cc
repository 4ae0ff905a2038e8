// The scheduler. timeline.h says what it models; here stand the decisions, all under Timeline::lock.
#include "timeline.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

namespace allot::sim {
namespace {

// A waiter lets the holder come to its slice's end by itself for this long.
constexpr int64_t kGraceNs = 300'000;

Timeline& line_of(uint32_t gpu) {
  return machine()->gpus[gpu].timeline;
}

int64_t switch_ns() {
  static const int64_t value = [] {
    const char* text = getenv("ALLOT_SIM_SWITCH_US");
    return (text != nullptr ? strtoll(text, nullptr, 10) : 200) * 1000;
  }();
  return value;
}

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
  group.bell.fetch_add(1);
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&group.bell), FUTEX_WAKE, INT32_MAX, nullptr,
          nullptr, 0);
}

void wait_bell(Group& group, uint32_t seen, int64_t until_ns) {
  timespec t{until_ns / 1'000'000'000, until_ns % 1'000'000'000};
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&group.bell), FUTEX_WAIT_BITSET, seen, &t, nullptr,
          FUTEX_BITSET_MATCH_ANY);
}

// The next waiting group after the current one, in turn; 0 = none, else index + 1.
uint32_t next_waiter(Timeline& line) {
  for (uint32_t k = 0; k < line.high; k++) {
    const uint32_t i = (line.current + k) % line.high;  // `current` is index + 1: starts behind it
    Group& group = line.groups[i];
    if (group.used == 0 || group.waiting == 0 || group.stopped != 0) continue;
    if (slot_alive(group.slot)) return i + 1;
    group.waiting = 0;
  }
  return 0;
}

void grant(Timeline& line, uint32_t number, int64_t now) {
  Group& group = line.groups[number - 1];
  int64_t start = std::max(line.free_ns, group.ready_ns);
  if (number != line.current) start = std::max(start, line.free_ns + switch_ns());
  start = std::max(start, now - kMaxLagNs);
  line.current = number;
  line.running = 1;
  group.waiting = 0;
  group.grant_ns = start;
  group.slice_end_ns = start + static_cast<int64_t>(group.timeslice_us.load()) * 1000;
  group.grant++;
  ring(group);
}

// Ends the current grant at `at` and hands the GPU to whoever waits.
void pass_on(Timeline& line, int64_t at, int64_t now) {
  if (line.running != 0) {
    Group& group = line.groups[line.current - 1];
    line.free_ns = std::max(line.free_ns, at);
    group.usage.add(group.grant_ns, at);
    line.usage.add(group.grant_ns, at);
    group.ended_ns = at;
    group.over = group.grant.load();
    line.running = 0;
  }
  if (const uint32_t next = next_waiter(line)) grant(line, next, now);
}

// Takes the GPU from a holder whose slice ended long ago, and gives it out when it is idle.
void settle(Timeline& line, int64_t now) {
  if (line.running == 0) return pass_on(line, 0, now);
  const Group& holder = line.groups[line.current - 1];
  if (holder.used != 0 && now < holder.slice_end_ns + kGraceNs) return;
  if (next_waiter(line) != 0) pass_on(line, std::min<int64_t>(now, holder.slice_end_ns), now);
}

}  // namespace

uint32_t open_group(uint32_t gpu) {
  Timeline& line = line_of(gpu);
  LineLock lock(line);
  for (uint32_t i = 0; i < kMaxGroups; i++) {
    Group& group = line.groups[i];
    if (group.used != 0) continue;
    group.timeslice_us = kDefaultSliceUs;
    group.stopped = 0;
    group.waiting = 0;
    group.slot = my_slot();
    group.ready_ns = group.slice_end_ns = group.resume_ns = 0;
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
    pass_on(line, std::min<int64_t>(now, group.slice_end_ns), now);
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
  // The holder may be asleep or late: it finds its grant ended here, and keeps what it did until then.
  if (line.current == index + 1 && line.running != 0) {
    pass_on(line, std::min<int64_t>(now, group.slice_end_ns), now);
  }
  ring(group);
}

void resume_group(uint32_t gpu, uint32_t index) {
  Timeline& line = line_of(gpu);
  LineLock lock(line);
  Group& group = line.groups[index];
  if (group.stopped == 0) return;
  group.resume_ns = now_ns();
  group.stopped = 0;
  if (group.waiting != 0) group.ready_ns = std::max<int64_t>(group.ready_ns, group.resume_ns);
  settle(line, group.resume_ns);
  ring(group);
}

void preempt_group(uint32_t gpu, uint32_t index) {
  Timeline& line = line_of(gpu);
  LineLock lock(line);
  Group& group = line.groups[index];
  if (line.current != index + 1 || line.running == 0) return;
  group.slice_end_ns = std::min<int64_t>(group.slice_end_ns, now_ns());
  ring(group);
}

void GpuHold::kick() {
  ring(line_of(gpu_).groups[group_]);
}

void GpuHold::wait_resumed(const std::atomic<bool>& quit) {
  Group& group = line_of(gpu_).groups[group_];
  while (!quit) {
    const uint32_t bell = group.bell;
    if (group.stopped == 0) return;
    wait_bell(group, bell, now_ns() + 100'000'000);
  }
}

// Waits for a grant. False when `quit`.
bool GpuHold::acquire(int64_t ready_ns, const std::atomic<bool>& quit) {
  Timeline& line = line_of(gpu_);
  Group& group = line.groups[group_];
  bool asked = false;
  while (true) {
    const uint32_t bell = group.bell;
    int64_t until;
    {
      LineLock lock(line);
      const int64_t now = now_ns();
      if (quit) {
        group.waiting = 0;
        return false;
      }
      if (!asked) {
        grant_ = group.grant;
        group.ready_ns = std::max<int64_t>(ready_ns, group.resume_ns);
        group.waiting = 1;
        asked = true;
      }
      settle(line, now);
      if (group.grant != grant_) {
        grant_ = group.grant;
        held_ = true;
        at_ns_ = group.grant_ns;
        return true;
      }
      const Group& holder = line.groups[line.current != 0 ? line.current - 1 : 0];
      until = line.running != 0 ? std::max(holder.slice_end_ns + kGraceNs, now + 50'000)
                                : now + 20'000'000;
    }
    wait_bell(group, bell, until);
  }
}

// At the end of the slice: another one when nobody waits. False when the GPU went to somebody else.
bool GpuHold::extend() {
  Timeline& line = line_of(gpu_);
  LineLock lock(line);
  Group& group = line.groups[group_];
  if (group.over == grant_) return held_ = false;
  const int64_t now = now_ns(), end = group.slice_end_ns;
  if (next_waiter(line) != 0) {
    pass_on(line, end, now);
    return held_ = false;
  }
  group.usage.add(group.grant_ns, end);
  line.usage.add(group.grant_ns, end);
  at_ns_ = std::max(at_ns_, now - kMaxLagNs);
  group.grant_ns = std::max(end, at_ns_);
  group.slice_end_ns = group.grant_ns + static_cast<int64_t>(group.timeslice_us.load()) * 1000;
  return true;
}

void GpuHold::idle() {
  if (!held_) return;
  Timeline& line = line_of(gpu_);
  LineLock lock(line);
  if (line.groups[group_].over != grant_) pass_on(line, at_ns_, now_ns());
  held_ = false;
}

int64_t GpuHold::run(int64_t duration_ns, int64_t ready_ns, const std::atomic<bool>& quit) {
  Group& group = line_of(gpu_).groups[group_];
  int64_t left = duration_ns;
  while (!quit) {
    if (!held_ && !acquire(ready_ns, quit)) break;
    const uint32_t bell = group.bell;
    // A grant that has ended still entitles to its stretch: what was laid out before its end counts,
    // however late this thread comes to look.
    const auto limit = [&] {
      return group.over == grant_ ? group.ended_ns.load() : group.slice_end_ns.load();
    };
    const int64_t start = std::max(at_ns_, ready_ns);
    const int64_t target = std::min(start + left, limit());
    if (start < target || left == 0) {
      if (now_ns() < target) wait_bell(group, bell, target);
      const int64_t reached = std::min({target, now_ns(), limit()});
      left -= std::max<int64_t>(0, reached - start);
      at_ns_ = std::max(start, reached);
      if (left <= 0) return at_ns_;
      if (reached < limit()) continue;  // the bell rang early
    }
    if (!extend()) ready_ns = std::max(ready_ns, at_ns_);
  }
  return std::max(at_ns_, ready_ns);
}

}  // namespace allot::sim
