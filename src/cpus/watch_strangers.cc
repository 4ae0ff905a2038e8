// Strangers on the CPUs of exclusive slices (watch.h): who runs there without being of the slice.
//
// A cpuset keeps its own tasks in. Only a partition of version 2 keeps others out. In version 1,
// and without a cpuset, every other process may run on the same CPUs. So the watcher names those
// that did, and, asked to, takes these CPUs out of the masks of all of them until the slice or the
// watcher ends.
//
// Must not happen: a mask that is not given back. Each thread's mask from before is kept, and a
// thread that was born with a mask which was cut here gets its parent's.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <set>

#include "cpus/attach.h"
#include "cpus/watch.h"

namespace allot::cpus {
namespace {

constexpr double kStrangersEveryS = 1;
constexpr double kSayEveryS = 10;

void add_group(const FsRoot& fs, const std::string& group, std::set<pid_t>* pids) {
  for (pid_t pid : ids_in(fs, procs_file(group))) pids->insert(pid);
  for (const std::string& below : groups_below(fs, group)) add_group(fs, below, pids);
}

std::set<pid_t> members_of(const FsRoot& fs, const Lease& lease) {
  std::set<pid_t> pids;
  if (!lease.group.empty()) add_group(fs, lease.group, &pids);
  if (lease.group.empty()) {
    for (pid_t pid : bound_processes(fs, lease)) pids.insert(pid);
  }
  return pids;
}

std::string named(const FsRoot& fs, pid_t pid) {
  return fmt::format("{} ({})", pid,
                     fs.read_line(fmt::format("/proc/{}/comm", pid)).value_or("ended"));
}

// "812 (sshd), 900 (bash) and 85 more".
std::string crowd(const std::vector<std::string>& names, size_t most) {
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), most); ++i)
    text += (text.empty() ? "" : ", ") + names[i];
  if (names.size() > most) text += fmt::format(" and {} more", names.size() - most);
  return text;
}

}  // namespace

std::vector<pid_t> Watcher::everybody() const {
  if (options_.strangers_among) return options_.strangers_among();
  std::vector<pid_t> pids;
  for (const std::string& name : fs_.list("/proc")) {
    pid_t pid = 0;
    auto [end, ec] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (ec == std::errc{} && end == name.data() + name.size()) pids.push_back(pid);
  }
  return pids;
}

// True when the thread used CPU time since the last look.
bool Watcher::has_run(pid_t tid, const ThreadStat& stat) {
  auto [it, fresh] = stranger_ticks_.try_emplace({tid, stat.start_ticks}, stat.cpu_ticks);
  bool ran = !fresh && stat.cpu_ticks > it->second;
  it->second = stat.cpu_ticks;
  return ran;
}

// What a thread with this mask was allowed before masks were cut here.
CpuSet Watcher::mask_before(const CpuSet& mask, uint64_t start_ticks) const {
  if (start_ticks < started_ticks_) return mask;
  for (const auto& [id, known] : strangers_) {
    if (known.now == mask) return known.before;
  }
  return mask;
}

// Brings one thread's mask to what it was before, less `forbidden`. Returns 0, -1 when there was
// nothing to do, or an errno (EDOM: no CPU would be left).
int Watcher::cut_mask(pid_t tid, uint64_t start_ticks, const CpuSet& forbidden) {
  CpuSet mask;
  if (get_affinity(tid, &mask) != 0 || mask.empty()) return -1;
  const std::pair key{tid, start_ticks};
  auto it = strangers_.find(key);
  Stranger known{mask_before(mask, start_ticks), mask};
  if (it != strangers_.end() && it->second.now == mask) known = it->second;
  CpuSet target = known.before - forbidden;
  if (target.empty()) return EDOM;
  int error = -1;
  if (target != mask) {
    error = options_.dry_run ? 0 : set_affinity(tid, target);
    if (error == 0 && !options_.dry_run) known.now = target;
  }
  if (known.now == known.before) {
    strangers_.erase(key);
  } else {
    strangers_[key] = known;
  }
  return error == ESRCH ? -1 : error;
}

void Watcher::check_strangers(const std::vector<Lease>& leases, double now_s,
                              std::vector<WatchAction>* actions) {
  if (strangers_looked_s_ >= 0 && now_s - strangers_looked_s_ < kStrangersEveryS) return;
  strangers_looked_s_ = now_s;
  std::vector<std::pair<const Lease*, std::set<pid_t>>> exclusive;
  for (const Lease& lease : leases) {
    if (lease.exclusive && (options_.slice.empty() || lease.name == options_.slice))
      exclusive.emplace_back(&lease, members_of(fs_, lease));
  }
  if (exclusive.empty() && strangers_.empty()) return;
  for (pid_t pid : everybody()) {
    std::optional<ThreadStat> leader = thread_stat(fs_, pid, pid);
    if (!leader || (leader->flags & kPfKthread) != 0) continue;
    CpuSet forbidden;
    std::vector<const Lease*> of;
    for (const auto& [lease, members] : exclusive) {
      if (members.count(pid) != 0) continue;
      forbidden |= lease->cpus;
      of.push_back(lease);
    }
    look_at_stranger(pid, leader->start_ticks, forbidden, of);
  }
  for (const auto& [lease, members] : exclusive) say_strangers(*lease, now_s, actions);
}

void Watcher::look_at_stranger(pid_t pid, uint64_t start_ticks, const CpuSet& forbidden,
                               const std::vector<const Lease*>& of) {
  for (pid_t tid : threads_of(fs_, pid)) {
    std::optional<ThreadStat> stat = thread_stat(fs_, pid, tid);
    if (!stat || stat->state == 'Z' || stat->state == 'X') continue;
    bool ran = has_run(tid, *stat);
    int cut = options_.move_strangers ? cut_mask(tid, stat->start_ticks, forbidden) : -1;
    for (const Lease* lease : of) {
      StrangerTalk& talk = talk_[lease->name + "\n" + lease->group];
      if (cut == 0) talk.cut[pid] = start_ticks;
      bool there = ran && lease->cpus.has(stat->last_cpu);
      if (!there || cut == 0 || (options_.move_strangers && cut < 0)) continue;
      if (talk.named.insert({pid, start_ticks}).second) talk.ran[pid] = start_ticks;
    }
  }
}

void Watcher::say_strangers(const Lease& lease, double now_s, std::vector<WatchAction>* actions) {
  StrangerTalk& talk = talk_[lease.name + "\n" + lease.group];
  const auto names = [this](const std::map<pid_t, uint64_t>& pids) {
    std::vector<std::string> out;
    out.reserve(pids.size());
    for (const auto& [pid, start] : pids) out.push_back(named(fs_, pid));
    return crowd(out, options_.named);
  };
  const auto word = [](size_t n) { return n == 1 ? "process" : "processes"; };
  if (!talk.cut.empty()) {
    WatchAction action{WatchAction::Kind::kKeepOff,
                       lease.name,
                       fmt::format("keep {} {} off CPUs {}", word(talk.cut.size()), names(talk.cut),
                                   to_list(lease.cpus)),
                       "not of this exclusive slice",
                       false,
                       ""};
    if (options_.dry_run) {
      say_once(lease, "strangers", std::move(action), actions);
    } else {
      act(std::move(action), 0, actions);
    }
    talk.cut.clear();
  }
  if (talk.ran.empty() || now_s - talk.said_s < kSayEveryS) return;
  talk.said_s = now_s;
  act({WatchAction::Kind::kReport, lease.name,
       options_.move_strangers ? fmt::format("left {} {} on CPUs {}", word(talk.ran.size()),
                                             names(talk.ran), to_list(lease.cpus))
                               : fmt::format("{} {} ran on CPUs {}", word(talk.ran.size()),
                                             names(talk.ran), to_list(lease.cpus)),
       options_.move_strangers ? "not of this exclusive slice, but bound to its CPUs"
                               : "not of this exclusive slice, and nothing keeps others off",
       false, ""},
      0, actions);
  talk.ran.clear();
}

// Everybody has the old mask again.
void Watcher::let_strangers_back() {
  if (strangers_.empty() || options_.dry_run) return;
  for (pid_t pid : everybody()) {
    for (pid_t tid : threads_of(fs_, pid)) {
      std::optional<ThreadStat> stat = thread_stat(fs_, pid, tid);
      if (stat && (stat->flags & kPfKthread) == 0) cut_mask(tid, stat->start_ticks, CpuSet{});
    }
  }
}

}  // namespace allot::cpus
