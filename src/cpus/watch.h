// Keeping slices as they were given: notices drift and puts it back, notices pinned threads that
// wait beside idle CPUs of their own slice and moves them.
//
// What is watched is the ledger: every lease with its group and its program. Drift has four known
// makers: hotplug (version 1 takes an offline CPU out of every group for good), daemons that
// rewrite groups they think are theirs, tools that move processes, and threads that widen their own
// mask where no cpuset holds them.
//
// Rebalancing works on demand, the time in which a thread ran or wanted to run, from schedstat. A
// thread is moved only when it may run on part of its slice, waits for more than a fifth of the
// time, and a CPU of the slice would be less loaded with it than its own CPU is with it there. That
// must hold in two looks in a row, and a thread that was moved is left alone for five seconds: a
// load that hops about is not chased, and a balanced slice sees no action at all.
//
// Who puts back three times within a minute what somebody else changes is in a quarrel: from then
// on it is only reported.
//
// A process or thread of a slice that is found in another group is moved back, unless that group is
// of another slice or below its own. A group that is gone is made again, with its processes. A mask
// that was narrowed within the slice is only reported: the program may have done it.
//
// On the CPUs of an exclusive slice that is no partition, processes of others that ran there are
// reported; on demand their masks are cut by these CPUs, and given back at the end.
//
// Must not happen: an action without its reason in the log, or a change outside leased slices
// that was not asked for.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "cpus/affinity.h"
#include "cpus/cpuset_fs.h"
#include "cpus/leases.h"

namespace allot::cpus {

struct WatchOptions {
  std::string folder = "";  // of the ledger; "" = lease_folder(nullptr)
  std::string slice = "";   // "" = all
  bool dry_run = false;
  bool rebalance = true;
  double look_s = 0.5;          // least time between two looks at demand; shorter ones are noise
  double wait_part = 0.2;       // of the time spent waiting from which a thread counts as starved
  double rest_s = 5;            // a moved thread is left alone for so long
  bool move_strangers = false;  // off the CPUs of exclusive slices, until the watcher ends
  size_t named = 4;             // processes that a line about strangers names
  // For tests: who may be a stranger (none: everybody), and where it says which CPUs are online.
  std::function<std::vector<pid_t>()> strangers_among = nullptr;
  std::string online_file = "/sys/devices/system/cpu/online";
};

struct WatchAction {
  enum class Kind { kRestore, kMoveBack, kRepin, kRebalance, kKeepOff, kReport } kind;
  std::string slice;
  std::string what;   // "wrote 0-3 to .../cpuset.cpus"; in a dry run what would be done
  std::string why;    // "it had become 0-2"
  bool done = false;  // false: dry run, quarrel or failure
  std::string error;  // of a failure
};
std::string_view action_name(WatchAction::Kind kind);

class Watcher {
 public:
  explicit Watcher(WatchOptions options);
  ~Watcher();
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  // Looks at everything once and acts. `now_s` is a clock that does not jump.
  std::vector<WatchAction> look(double now_s);
  // Waits until a watched file was written to, or for `timeout_ms`. True when something was
  // written.
  bool wait(int timeout_ms);
  // Leases seen by the last look: those watched, and the names of all.
  int slices() const { return slices_; }
  const std::vector<std::string>& names() const { return names_; }
  // Why the last look could not read the leases (it then kept the slices as before); empty else.
  const std::string& problem() const { return problem_; }

 private:
  struct ThreadSample {
    uint64_t ran_ns = 0, waited_ns = 0;
    int starved_looks = 0;
    double moved_s = -1e9;
  };
  // What was seen in a slice: who is missing later was moved out, and a mask that changed was set.
  struct Seen {
    std::map<pid_t, uint64_t> processes;  // to start time
    std::map<pid_t, CpuSet> masks;        // of first threads that were narrower than the slice
    bool looked = false;
  };
  struct Stranger {
    CpuSet before, now;
  };
  // What is to be said of strangers on one slice's CPUs; processes with their start times.
  struct StrangerTalk {
    std::map<pid_t, uint64_t> cut, ran;
    std::set<std::pair<pid_t, uint64_t>> named;
    double said_s = -1e9;
  };
  struct Quarrel {
    std::vector<double> times_s;
    bool reported = false;
  };
  struct Demand {
    pid_t pid, tid;
    CpuSet mask;
    double demand, waited;
  };

  void check_group(const Lease& lease, double now_s, std::vector<WatchAction>* actions);
  void check_member(const Lease& lease, double now_s, std::vector<WatchAction>* actions);
  void check_threads(const Lease& lease, double now_s, std::vector<WatchAction>* actions);
  void check_narrowed(const Lease& lease, std::vector<WatchAction>* actions);
  bool make_again(const Lease& lease, double now_s, std::vector<WatchAction>* actions);
  void move_back(const Lease& lease, pid_t pid, pid_t tid, const std::string& from, double now_s,
                 std::vector<WatchAction>* actions);
  void say_once(const Lease& lease, const std::string& subject, WatchAction action,
                std::vector<WatchAction>* actions);
  void check_masks(const Lease& lease, double now_s, std::vector<WatchAction>* actions);
  void check_strangers(const std::vector<Lease>& leases, double now_s,
                       std::vector<WatchAction>* actions);
  void look_at_stranger(pid_t pid, uint64_t start_ticks, const CpuSet& forbidden,
                        const std::vector<const Lease*>& of);
  void say_strangers(const Lease& lease, double now_s, std::vector<WatchAction>* actions);
  void let_strangers_back();
  int cut_mask(pid_t tid, uint64_t start_ticks, const CpuSet& forbidden);
  CpuSet mask_before(const CpuSet& mask, uint64_t start_ticks) const;
  bool has_run(pid_t tid, const ThreadStat& stat);
  std::vector<pid_t> everybody() const;
  void rebalance(const Lease& lease, double now_s, double seconds,
                 std::vector<WatchAction>* actions);
  std::vector<Demand> demands_of(const Lease& lease, double seconds);
  std::vector<pid_t> processes_of(const Lease& lease) const;
  // False when this has been put back too often lately; adds the report the first time. Only what
  // was done counts: note_put_back() says that it was.
  void note_put_back(const Lease& lease, const std::string& key, double now_s);
  bool may_put_back(const Lease& lease, const std::string& key, double now_s,
                    std::vector<WatchAction>* actions);
  void act(WatchAction action, int error, std::vector<WatchAction>* actions);
  void follow_file(const std::string& path);

  WatchOptions options_;
  FsRoot fs_;
  Hierarchy hierarchy_;
  CpuSet online_;
  int slices_ = 0;
  int inotify_ = -1;
  double demand_looked_s_ = -1;
  std::map<std::string, int> followed_;
  std::map<std::pair<pid_t, uint64_t>, ThreadSample> threads_;  // by tid and start time
  std::map<std::string, Quarrel> quarrels_;
  std::map<std::string, Seen> seen_;  // by group
  std::map<std::string, CpuSet>
      was_offline_;  // CPUs of a group that were off line since it was whole
  std::vector<std::string> groups_, names_;  // of all leases, as of the last look
  std::string problem_;
  uint64_t started_ticks_ = 0;  // of this process
  double strangers_looked_s_ = -1;
  std::map<std::pair<pid_t, uint64_t>, Stranger> strangers_;       // whose masks were cut
  std::map<std::pair<pid_t, uint64_t>, uint64_t> stranger_ticks_;  // CPU time, by tid and start
  std::map<std::string, StrangerTalk> talk_;                       // by slice and group
  std::map<std::string, std::string> reported_;  // last report by slice and subject, to say it once
};

}  // namespace allot::cpus
