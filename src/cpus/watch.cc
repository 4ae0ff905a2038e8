// Drift: noticing and putting back (watch.h). Rebalancing is in rebalance.cc.
#include "cpus/watch.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "cpus/attach.h"

namespace allot::cpus {

std::string_view action_name(WatchAction::Kind kind) {
  switch (kind) {
    case WatchAction::Kind::kRestore:
      return "restore";
    case WatchAction::Kind::kMoveBack:
      return "move back";
    case WatchAction::Kind::kRepin:
      return "repin";
    case WatchAction::Kind::kRebalance:
      return "rebalance";
    case WatchAction::Kind::kKeepOff:
      return "keep off";
    case WatchAction::Kind::kReport:
      break;
  }
  return "report";
}

Watcher::Watcher(WatchOptions options) : options_(std::move(options)) {
  if (options_.folder.empty()) options_.folder = lease_folder(nullptr);
  hierarchy_ = find_hierarchy(fs_);
  started_ticks_ = identify(fs_, getpid()).value_or(ProcessId{}).start_ticks;
  inotify_ = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
}

Watcher::~Watcher() {
  let_strangers_back();
  if (inotify_ >= 0) close(inotify_);
}

void Watcher::follow_file(const std::string& path) {
  if (inotify_ < 0 || followed_.count(path) != 0) return;
  followed_[path] = inotify_add_watch(inotify_, path.c_str(), IN_MODIFY);
}

bool Watcher::wait(int timeout_ms) {
  pollfd files{inotify_, POLLIN, 0};
  int ready = poll(&files, inotify_ >= 0 ? 1 : 0, timeout_ms);
  char events[4096];
  while (inotify_ >= 0 && read(inotify_, events, sizeof events) > 0) {
  }
  return ready > 0;
}

void Watcher::act(WatchAction action, int error, std::vector<WatchAction>* actions) {
  action.done = !options_.dry_run && error == 0 && action.kind != WatchAction::Kind::kReport;
  if (error != 0) action.error = std::strerror(error);
  actions->push_back(std::move(action));
}

void Watcher::note_put_back(const Lease& lease, const std::string& key, double now_s) {
  quarrels_[lease.name + "\n" + key].times_s.push_back(now_s);
}

void Watcher::say_once(const Lease& lease, const std::string& subject, WatchAction action,
                       std::vector<WatchAction>* actions) {
  std::string& said = reported_[lease.name + "\n" + subject];
  std::string text = action.what + action.why + action.error;
  if (said == text) return;
  said = text;
  actions->push_back(std::move(action));
}

bool Watcher::may_put_back(const Lease& lease, const std::string& key, double now_s,
                           std::vector<WatchAction>* actions) {
  Quarrel& q = quarrels_[lease.name + "\n" + key];
  std::erase_if(q.times_s, [now_s](double t) { return t < now_s - 60; });
  if (q.times_s.size() < 3) {
    q.reported = false;
    return true;
  }
  if (!q.reported) {
    act({WatchAction::Kind::kReport, lease.name, "left " + key + " as it is",
         "another program has changed it three times within a minute", false, ""},
        0, actions);
    q.reported = true;
  }
  return false;
}

// The group's CPUs: what was leased, less what is offline now.
void Watcher::check_group(const Lease& lease, double now_s, std::vector<WatchAction>* actions) {
  Expected<GroupState> state = read_group(fs_, hierarchy_, lease.group);
  std::string& said = reported_[lease.name + "\ngroup"];
  if (!state) {
    make_again(lease, now_s, actions);
    return;
  }
  std::string file = hierarchy_.file(lease.group, "cpus");
  follow_file(file);
  bool v1 = hierarchy_.kind == CpusetKind::kV1;
  // Version 2 keeps offline CPUs in the file and gives them back by itself; version 1 refuses them.
  CpuSet want = v1 ? lease.cpus & online_ : lease.cpus;
  CpuSet& was_offline = was_offline_[lease.group];
  was_offline |= lease.cpus - online_;
  if (state->cpus == want || want.empty()) {
    CpuSet usable = want & online_;
    bool short_of = !v1 && state->effective_cpus != usable;
    std::string now = short_of ? to_list(state->effective_cpus) : "";
    if (short_of && said != now) {
      act({WatchAction::Kind::kReport, lease.name, fmt::format("only CPUs {} are in force", now),
           fmt::format("a group above {} has fewer than {}", lease.group, to_list(lease.cpus)),
           false, ""},
          0, actions);
    }
    said = now;
    if (lease.cpus - online_ != CpuSet{}) {
      std::string off = to_list(lease.cpus - online_);
      std::string& last = reported_[lease.name + "\noffline"];
      if (last != off)
        act({WatchAction::Kind::kReport, lease.name,
             fmt::format("CPU {} of the slice is offline", off), "hotplug", false, ""},
            0, actions);
      last = off;
    } else {
      reported_.erase(lease.name + "\noffline");
      was_offline = {};
    }
    return;
  }
  // Version 1 takes CPUs that go off line out of the group for good; anything else somebody wrote.
  CpuSet lost = want - state->cpus;
  bool hotplug = v1 && !lost.empty() && was_offline.contains(lost) && want.contains(state->cpus);
  std::string why = fmt::format("it had become \"{}\", {}", to_list(state->cpus),
                                hotplug ? fmt::format("as CPU {} had been offline", to_list(lost))
                                        : "which another program wrote");
  WatchAction action{WatchAction::Kind::kRestore,
                     lease.name,
                     fmt::format("write {} to {}", to_list(want), file),
                     why,
                     false,
                     ""};
  // What a dry run leaves as it is would be said at every look, and be taken for a quarrel.
  if (options_.dry_run) {
    say_once(lease, file, std::move(action), actions);
    return;
  }
  if (!hotplug && !may_put_back(lease, file, now_s, actions)) return;
  int error = perform({Step::Op::kWrite, file, to_list(want)});
  if (error != 0) {
    action.error = std::strerror(error);
    say_once(lease, file, std::move(action), actions);
    return;
  }
  if (!hotplug) note_put_back(lease, file, now_s);
  act(std::move(action), 0, actions);
}

std::vector<pid_t> Watcher::processes_of(const Lease& lease) const {
  if (!lease.group.empty()) return ids_in(fs_, procs_file(lease.group));
  std::vector<pid_t> pids;
  if (lease.member.pid == 0 || !alive(fs_, lease.member)) return pids;
  pids = descendants_of(fs_, lease.member.pid);
  pids.insert(pids.begin(), lease.member.pid);
  return pids;
}

// Without a cpuset a thread may leave: it is put back, one by one, and the count is what is logged.
void Watcher::check_masks(const Lease& lease, double now_s, std::vector<WatchAction>* actions) {
  CpuSet want = lease.cpus & online_;
  if (want.empty()) return;
  int left = 0, put_back = 0, error = 0;
  CpuSet seen;
  std::vector<pid_t> tids;
  for (pid_t pid : processes_of(lease)) {
    for (pid_t tid : threads_of(fs_, pid)) {
      CpuSet mask;
      if (get_affinity(tid, &mask) != 0 || want.contains(mask)) continue;
      ++left;
      seen |= mask;
      tids.push_back(tid);
    }
  }
  const auto action = [&](int threads) {
    return WatchAction{
        WatchAction::Kind::kRepin,
        lease.name,
        fmt::format("set the mask of {} threads to {}", threads, to_list(want)),
        fmt::format("{} threads allowed themselves CPUs {}", left, to_list(seen - want)),
        false,
        ""};
  };
  if (left > 0 && options_.dry_run) say_once(lease, "masks", action(left), actions);
  if (left == 0 || options_.dry_run ||
      !may_put_back(lease, "the masks of its threads", now_s, actions))
    return;
  note_put_back(lease, "the masks of its threads", now_s);
  for (pid_t tid : tids) {
    int e = set_affinity(tid, want);
    if (e == 0) ++put_back;
    if (e != 0 && e != ESRCH) error = e;
  }
  act(action(put_back), error, actions);
}

std::vector<WatchAction> Watcher::look(double now_s) {
  std::vector<WatchAction> actions;
  std::vector<Lease> leases;
  problem_.clear();
  if (fs_.exists(options_.folder)) {
    Expected<LockedLedger> ledger = LockedLedger::open(options_.folder);
    if (!ledger) {
      problem_ = ledger.error().text;
      return actions;
    }
    leases = ledger->read(fs_);
  }
  online_ = fs_.read_list(options_.online_file).value_or(online_);
  slices_ = 0;
  groups_.clear();
  names_.clear();
  for (const Lease& lease : leases) {
    groups_.push_back(lease.group);
    names_.push_back(lease.name);
  }
  bool look_at_demand =
      options_.rebalance && (demand_looked_s_ < 0 || now_s - demand_looked_s_ >= options_.look_s);
  double seconds = demand_looked_s_ < 0 ? 0 : now_s - demand_looked_s_;
  for (const Lease& lease : leases) {
    if (!options_.slice.empty() && lease.name != options_.slice) continue;
    ++slices_;
    if (!lease.group.empty() && hierarchy_.kind != CpusetKind::kNone) {
      check_group(lease, now_s, &actions);
      check_member(lease, now_s, &actions);
      check_threads(lease, now_s, &actions);
      check_narrowed(lease, &actions);
    } else {
      check_masks(lease, now_s, &actions);
    }
    if (look_at_demand) rebalance(lease, now_s, seconds, &actions);
  }
  if (look_at_demand) demand_looked_s_ = now_s;
  check_strangers(leases, now_s, &actions);
  return actions;
}

}  // namespace allot::cpus
