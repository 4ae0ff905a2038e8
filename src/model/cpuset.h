// The cpuset rules of the Linux kernel, executable: what a write, an attach, a fork or a hotplug
// event does to every group and task, and which errno it gives.
//
// How the segments hang together (the kernel's names; one hierarchy, which is all that cpuset has):
//
//      Cgroup "/"  <-- parent --  Cgroup "/a"  <-- parent --  Cgroup "/a/b"
//         |  subsystem state         |                            |  (v2: none until the parent's
//         v                          v                            |   subtree_control has +cpuset)
//      Cpuset  <--- parent css ---  Cpuset  <........ effective ..+
//      cpus mems effective flags    cpus mems effective flags
//         ^                          ^
//         | css_set->subsys[cpuset]  |
//      CssSet ("/", Cpuset /)       CssSet ("/a", Cpuset /a)      CssSet ("/a/b", Cpuset /a)
//         |  tasks, in list order      |                             |
//      Task 1 - Task 2              Task 7 - Task 9               Task 12
//      (cpus_mask, user mask, mems_allowed, thread group)
//
// A Cgroup is a directory. Its Cpuset is the state the cpuset subsystem keeps for it. A CssSet ties
// a Cgroup to the Cpuset that rules its tasks and lists those tasks; every task is in exactly one
// CssSet. On v2 a directory without the controller uses its nearest ancestor's Cpuset.
//
// The rules depend on the kernel (Era) and on the hierarchy; each says in its .cc where it was
// read. v1.cc and v2.cc hold the rules of one hierarchy each, partition.cc those of v2 partitions.
// What the model does not know it refuses with Why::kUnknown instead of guessing.
//
// Everything here is deterministic: a task is taken to sleep, except while an operation makes it
// act (fork, wake). Where the kernel works behind the caller's back (the transfer of tasks out of
// an emptied v1 cpuset) the model gives the state after that work is done.
//
// What must not happen here: a look at the real machine. This is a pure function of its inputs.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/mask.h"

namespace allot::model {

// A kernel whose rules are known. Only v1 exists for the historical one.
enum class Era : uint8_t {
  k2_6_25,  // cgroup cpusets with the heap scan, as the source documents describe them
  k6_1,     // no user mask: a cpuset change forgets what sched_setaffinity asked for
  k6_12,    // user_cpus_ptr (since 6.2), remote partitions and cpus.exclusive (since 6.7)
};

enum class Hierarchy : uint8_t {
  kV1,
  kV1V2Mode,  // v1 mounted with cpuset_v2_mode
  kV2,
};

// The machine as the kernel booted it.
struct Machine {
  Mask possible_cpus;
  Mask online_cpus;  // online and active
  Mask possible_nodes{0};
  Mask memory_nodes{0};       // nodes with memory (N_MEMORY)
  int nr_cpu_ids = 0;         // size of a CPU list; 0: highest possible CPU + 1
  int max_nodes = 1024;       // MAX_NUMNODES, size of a node list
  int config_nr_cpus = 8192;  // CONFIG_NR_CPUS: bounds the length of a write
  int sched_domain_level_max = 3;
  static Machine flat(int cpus, int nodes = 1);
};

// Who performs an operation. tid is what "0" means in a tasks file.
struct Caller {
  int tid = 1;
  uint32_t euid = 0;
  bool cap_sys_nice = true;
};

// Why an operation failed, or succeeded without giving what was asked for.
enum class Why : uint8_t {
  kNone,
  kUnknown,             // the model does not know this rule: it predicts nothing
  kNoGroup,             // ENOENT: the directory does not exist
  kNoFile,              // ENOENT: the directory has no such file (controller not enabled)
  kReadOnly,            // EINVAL/EACCES: the file cannot be written
  kGroupExists,         // EEXIST
  kParse,               // EINVAL, ERANGE, EOVERFLOW: the text is no list, number or word
  kTooLong,             // E2BIG
  kRootFixed,           // EACCES: the root's cpus and mems cannot be written
  kNotInTop,            // EINVAL: CPUs or nodes offline or not there; cpus/mems name them
  kChildNeeds,          // EBUSY: group (a child) uses cpus/mems that would go
  kChildExclusive,      // EBUSY: group (a child) is exclusive, so this one must stay exclusive
  kParentLacks,         // EACCES: group (the parent) does not have cpus/mems
  kParentNotExclusive,  // EACCES: group (the parent) is not exclusive
  kPopulated,           // ENOSPC: would leave tasks without cpus or mems; EBUSY on rmdir
  kSiblingOverlap,      // EINVAL: exclusive, and group (a sibling) shares cpus/mems
  kEmptyTarget,         // ENOSPC: attach to a cpuset without cpus or mems
  kNoTask,              // ESRCH
  kBoundTask,           // EINVAL: the task may not change its CPUs (PF_NO_SETAFFINITY)
  kNotOwner,            // EACCES, EPERM
  kNoCpuLeft,           // EINVAL: no active CPU in mask and cpuset; cpus is the cpuset's set
  kHasChildren,         // EBUSY on rmdir
  kNotAvailable,        // ENOENT: the parent does not hand the controller down
  kChildUsesControl,    // EBUSY: group (a child) hands the controller on
  kInvalidDomain,       // EOPNOTSUPP: domain invalid, or threads across domains
  kInternalTasks,       // EBUSY: no-internal-process rule
  kClipped,             // success, but cpus (asked for) were dropped
  kInherited,           // success, but nothing of it is usable: the parent's set is used
  kTransferred,         // success, and tasks were moved to group by the kernel
  kLastOfDomain,        // EBUSY: the last CPU of a partition, which has deadline servers (6.12)
  kPartition,           // success, but the partition is not valid; detail has the kernel's words
};

// The machine-readable cause: which group, which CPUs and nodes, which task.
struct Reason {
  Why why = Why::kNone;
  std::string group;  // path of the child, sibling, parent or target that is in the way
  Mask cpus;
  Mask mems;
  int tid = 0;
  std::string detail;  // the kernel's own words, where it has some
};

// A short English name of a Why, for JSON and tests ("child_needs").
std::string_view why_name(Why why);
// One sentence for people: "child /a/b uses CPU 3".
std::string sentence(const Reason& reason);

// What an operation gives: 0 or an errno, and why. Also a success can have a reason.
struct Outcome {
  int err = 0;
  Reason reason;
  bool ok() const { return err == 0; }
};

// What is known of a task. Defaults are an ordinary process of root in "/".
struct TaskInit {
  int tid = 0;
  int tgid = 0;  // 0: tid
  std::string group = "/";
  std::optional<Mask> cpus = {};  // cpus_mask (Cpus_allowed); none: what the group gives
  std::optional<Mask> user = {};  // user_cpus_ptr, eras with one
  std::optional<Mask> mems = {};  // Mems_allowed; none: what the group gives
  uint32_t uid = 0;
  bool no_setaffinity = false;  // PF_NO_SETAFFINITY: bound kernel thread
};

// An existing group, to start the model from a machine's current state.
struct GroupInit {
  std::string path;
  Mask cpus = {}, mems = {};
  bool cpu_exclusive = false, mem_exclusive = false, mem_hardwall = false;
  bool sched_load_balance = true, memory_migrate = false;
  bool spread_page = false, spread_slab = false, clone_children = false;
  int64_t relax_domain_level = -1;
  bool cpuset_controller = true;  // v2: the parent's subtree_control has cpuset
  bool threaded = false;          // v2: cgroup.type
  // v2: the files cpus.partition, cpus.exclusive, cpus.exclusive.effective and cpus.effective; the
  // last only matters where partitions have taken CPUs.
  std::string partition = "member";
  Mask exclusive_cpus = {}, effective_xcpus = {};
  std::optional<Mask> effective_cpus = {};
};

struct State;  // groups and tasks; cpuset_state.h

// Switches one rule off or over: tests prove with it that the comparison with real kernels would
// notice. 0 is the true model; mutation_count() is one more than the last. See mutation.h.
using Mutation = int;

// One hierarchy of cpusets. Not thread safe; allocates freely; never blocks.
class Cpusets {
 public:
  Cpusets(const Machine& machine, Era era, Hierarchy hierarchy, Mutation mutation = 0);
  ~Cpusets();
  Cpusets(const Cpusets& other);
  Cpusets& operator=(const Cpusets& other);
  Cpusets(Cpusets&&) noexcept;
  Cpusets& operator=(Cpusets&&) noexcept;

  // Takes over what is there, without a rule being asked. Parents first; groups before tasks. v2:
  // effective sets are computed. False: parent missing or task known already: predict nothing then.
  bool adopt_group(const GroupInit& init);
  bool adopt_task(const TaskInit& init);

  // Paths start at the hierarchy's root: "/", "/a", "/a/b".
  Outcome mkdir(std::string_view path);
  Outcome rmdir(std::string_view path);
  // Writes text to a file of a group, as write(2) of exactly these bytes does. v1 files:
  // cpuset.cpus, .mems, .cpu_exclusive, .mem_exclusive, .mem_hardwall, .sched_load_balance,
  // .sched_relax_domain_level, .memory_migrate, .memory_spread_page, .memory_spread_slab,
  // cgroup.clone_children, tasks, cgroup.procs. v2 files: cpuset.cpus, .mems, .cpus.partition,
  // cgroup.subtree_control, cgroup.type, cgroup.procs, cgroup.threads.
  Outcome write(std::string_view path, std::string_view file, std::string_view text,
                const Caller& caller = {});
  // Content of a file, with its newline; none when the group has no such file.
  std::optional<std::string> read(std::string_view path, std::string_view file) const;
  // The files of a group that read() gives, in a fixed order.
  std::vector<std::string> files(std::string_view path) const;

  // One thread, or its whole thread group: the tasks, cgroup.procs and cgroup.threads files.
  Outcome attach_thread(std::string_view path, int tid, const Caller& caller = {});
  Outcome attach_process(std::string_view path, int tid, const Caller& caller = {});

  // tid wakes up and makes a child with the given id: a thread of its own group or a new process.
  Outcome fork(int tid, int child_tid, bool thread);
  // clone3(CLONE_INTO_CGROUP): the child starts in path (v2 only).
  Outcome fork_into(int tid, int child_tid, std::string_view path, const Caller& caller = {});
  Outcome exit(int tid);
  // A sleeping task runs once: a mask without an active CPU is then replaced by the scheduler.
  Outcome wake(int tid);
  Outcome set_affinity(int tid, const Mask& mask, const Caller& caller = {});
  Outcome get_affinity(int tid, Mask* mask) const;
  // Hotplug, including what the kernel does to cpusets behind it.
  Outcome offline(int cpu);
  Outcome online(int cpu);

  bool has_group(std::string_view path) const;
  std::vector<std::string> groups() const;  // all paths, parents first, in order of creation
  std::vector<int> tasks(std::string_view path) const;  // threads directly in the group, ascending
  std::vector<int> all_tasks() const;                   // ascending
  std::string group_of(int tid) const;                  // "" when there is no such task
  Mask cpus_mask(int tid) const;                        // Cpus_allowed of /proc/TID/status
  Mask mems_allowed(int tid) const;                     // Mems_allowed
  std::optional<Mask> user_mask(int tid) const;
  int tgid_of(int tid) const;  // 0 when there is no such task
  Mask cpus(std::string_view path) const;
  Mask mems(std::string_view path) const;
  Mask effective_cpus(std::string_view path) const;
  Mask effective_mems(std::string_view path) const;
  // CPUs the scheduler may run the task on now: its mask and active.
  Mask legal_cpus(int tid) const;
  Mask online_cpus() const;
  // v1: the scheduler's balancing domains that sched_load_balance makes; CPUs in none stand alone.
  std::vector<Mask> sched_domains() const;

  Era era() const;
  Hierarchy hierarchy() const;
  const Machine& machine() const;

  // Every file of every group and every task's group and masks, one line each, in a fixed order:
  // two models, or a model and a kernel, agree when these are equal.
  std::vector<std::string> observe() const;

 private:
  std::unique_ptr<State> state_;
};

}  // namespace allot::model
