// The state behind Cpusets: the structures drawn in cpuset.h, and the steps the rules are made of.
//
// Everything is kept by number (group id, tid), never by pointer, so that a State is copied by
// value: `plan` tries a sequence on a copy. Internal to src/model. What must not happen here: a
// rule that differs between v1 and v2; those are in v1.cc, v2.cc and partition.cc.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/cpuset.h"
#include "model/mutation.h"

namespace allot::model {

// Partition states of v2; the negative ones are the invalid forms.
enum PartitionState { kMember = 0, kRootPartition = 1, kIsolated = 2 };

// Why a partition is not valid (PERR_* of the kernel).
enum class PartitionError : uint8_t {
  kNone,
  kInvalidCpus,
  kInvalidParent,
  kNotPartition,
  kNotExclusive,
  kNoCpus,
  kHotplug,
  kEmpty,
  kAccess,
  kRemote,
};
// The kernel's words for it, which the partition file shows; they differ between kernels.
std::string_view partition_words(PartitionError error, Era era);

// What is asked of a partition's parent (partcmd_* of the kernel).
enum class PartitionStep : uint8_t { kEnable, kEnableIsolated, kDisable, kUpdate, kInvalidate };

struct Scratch;  // partition_6_12.h

// A mask as a file of the kernel's shows it.
inline std::string list_line(const Mask& mask) {
  return mask.list() + "\n";
}

// What the cpuset subsystem keeps for a group (struct cpuset).
struct Cpuset {
  Mask cpus, mems;                      // what was configured
  Mask effective_cpus, effective_mems;  // what is usable
  bool cpu_exclusive = false, mem_exclusive = false, mem_hardwall = false;
  bool sched_load_balance = true, memory_migrate = false;
  bool spread_page = false, spread_slab = false;
  int64_t relax_domain_level = -1;
  // v2: the effective set is the parent's for want of an own one.
  bool use_parent_ecpus = false;
  int partition = kMember;
  PartitionError partition_error = PartitionError::kNone;
  Mask subparts_cpus;    // 6.1: CPUs handed to partitions among the children
  Mask exclusive_cpus;   // 6.12: cpuset.cpus.exclusive
  Mask effective_xcpus;  // 6.12: cpuset.cpus.exclusive.effective
  int nr_subparts = 0;   // 6.12: valid partitions among the children
  bool remote = false;   // 6.12: a partition whose parent is none
};

// A directory of the hierarchy (struct cgroup).
struct Group {
  int id = 0;
  int parent = -1;
  std::string path;
  std::vector<int> children;  // in order of creation
  std::optional<Cpuset> cpuset;
  bool clone_children = false;
  bool memory_pressure_enabled = false;  // root of v1 only
  unsigned subtree_control = 0;          // v2: bits of controllers.h
  int domain = 0;                        // v2: dom_cgrp; its own id unless threaded
};

// The tie between a group, the Cpuset that rules its tasks, and those tasks (struct css_set).
struct CssSet {
  int group = 0;
  int cpuset = 0;          // the group that owns the Cpuset: itself or, on v2, an ancestor
  std::vector<int> tasks;  // in the order in which they came
};

struct Task {
  int tid = 0;
  int tgid = 0;
  int group = 0;
  Mask cpus;                 // cpus_mask
  std::optional<Mask> user;  // user_cpus_ptr
  Mask mems;
  uint32_t uid = 0;
  bool no_setaffinity = false;
  uint64_t born = 0;  // order of creation
};

// A balancing domain of the scheduler, and whether its deadline servers are counted as load: a
// rebuild counts those of new domains and forgets those of domains that stay the same.
struct Domain {
  Mask cpus;
  bool counted = true;
};

struct State {
  Machine machine;
  Era era = Era::k6_1;
  Hierarchy hierarchy = Hierarchy::kV1;
  Broken broken = Broken::kNothing;
  std::map<int, Group> groups;     // 0 is the root
  std::map<int, CssSet> css_sets;  // by group, only groups with tasks
  std::map<int, Task> tasks;
  Mask subpartitions;           // 6.12: CPUs taken from the root by partitions
  Mask isolated;                // 6.12: cpuset.cpus.isolated
  std::vector<Domain> domains;  // 6.12 on v2
  bool rebuild = false;         // the domains are to be made anew at the end of this operation
  int next_group = 1;
  uint64_t next_birth = 1;

  bool is(Broken rule) const { return broken == rule; }
  bool v2() const { return hierarchy == Hierarchy::kV2; }
  bool v2_mode() const { return hierarchy != Hierarchy::kV1; }
  bool user_masks() const { return era >= Era::k6_12; }
  int cpu_bits() const;
  const Mask& active() const { return machine.online_cpus; }

  // The tree.
  Group* find(std::string_view path);
  const Group* find(std::string_view path) const;
  Group& at(int id) { return groups.at(id); }
  const Group& at(int id) const { return groups.at(id); }
  // The group whose Cpuset rules this group's tasks.
  int effective_css(int group) const;
  Cpuset& css(int group) { return *groups.at(group).cpuset; }
  const Cpuset& css(int group) const { return *groups.at(group).cpuset; }
  // The group and all below it that have a Cpuset, parents first.
  std::vector<int> css_preorder(int from) const;
  std::vector<int> preorder(int from) const;
  std::vector<int> children_with_css(int group) const;
  bool has_tasks(int group) const;
  bool populated(int group) const;  // tasks in it or below
  std::vector<int> tasks_ruled_by(int css_group) const;
  std::vector<int> threads_of(int tgid) const;  // leader first, then by birth
  void move_task(Task* task, int group);
  void relink_css_sets();  // after cpusets came or went

  // Groups (cpuset.cc).
  Outcome make_group(std::string_view path);
  Outcome remove_group(std::string_view path);
  void create_css(int group);

  // cpus and mems (masks.cc).
  Outcome write_cpus(int group, std::string_view text);
  Outcome write_mems(int group, std::string_view text);
  Outcome validate(int group, const Cpuset& trial) const;
  Outcome validate_common(int group, const Cpuset& trial) const;
  Outcome validate_exclusive(int group, const Cpuset& trial) const;
  void update_cpus_below(int group, bool force);
  void update_mems_below(int group);
  Mask compute_effective(const Cpuset& own, int parent) const;
  void update_task_cpus(int css_group);
  void update_task_mems(int css_group);
  Mask guarantee_mems(int css_group) const;

  // v1 (v1.cc).
  Outcome validate_legacy(int group, const Cpuset& trial) const;
  Outcome write_v1(int group, std::string_view file, std::string_view text, const Caller& caller);
  std::optional<std::string> read_v1(int group, std::string_view file) const;
  // Files that change nothing here: any number for notify_on_release, nothing for memory_pressure.
  static Outcome write_plain(std::string_view file, std::string_view text);
  void clone_parent(int group);
  void hotplug_v1(int group, Reason* reason);

  // v2 (v2.cc): the rules of the cgroup core.
  Outcome write_v2(int group, std::string_view file, std::string_view text, const Caller& caller);
  std::optional<std::string> read_v2(int group, std::string_view file) const;
  Outcome write_subtree_control(int group, std::string_view text);
  Outcome write_type(int group, std::string_view text);
  void switch_cpusets(int group, bool on);
  void attach_switched(const Cpuset& old_state, const std::vector<int>& moving, bool on);
  unsigned controllers(int group) const;
  bool threaded(int group) const { return at(group).domain != group; }
  bool valid_domain(int group) const;
  bool thread_root(int group) const;
  bool can_be_thread_root(int group) const;
  Outcome vet_target(int group) const;
  void hotplug_v2(int group);
  void apply_hotplug(int group, Mask next);

  // v2 partitions, what the kernels have in common (partition.cc).
  Outcome write_partition(int group, std::string_view text);
  void set_partition(int group, int state);
  std::string partition_text(int group) const;
  Outcome partition_outcome(int group) const;
  bool partition_populated(int group, int excluded) const;
  bool try_flag(int group, bool Cpuset::*flag, bool on);
  void partition_changed(int group, int before);
  void adopt_partition(int group, const GroupInit& init);

  // Partitions of 6.1 (partition_6_1.cc).
  struct Subparts;
  Subparts update_subparts(int group, const Mask* next) const;
  PartitionError parent_subparts(int group, PartitionStep step, const Mask* next);
  bool update_one_6_1(int group, bool first, bool force);
  void update_below_6_1(int from, bool force);
  void update_siblings_6_1(int parent, int except);
  Outcome write_cpus_6_1(int group, const Cpuset& trial);
  void set_partition_6_1(int group, int state);
  bool hotplug_root_6_1();
  Mask hotplug_partition_6_1(int group, Mask next);
  void hotplug_6_1(int group);

  // Partitions of 6.12 (partition_6_12.cc: the steps; partition_write_6_12.cc: what causes them).
  int exclusive_cpus(const Cpuset& own, int group, bool trial, Mask* out) const;
  bool no_cpu_for_tasks(int parent, int group, const Mask& xcpus) const;
  bool set_exclusive(int group, int state);
  void set_balance(int group, int before);
  void rebuild_domains();
  std::vector<Mask> wanted_domains() const;
  bool deadline_load(int cpu) const;
  void reset_partition(int group);
  void new_state_of(int state, const Mask& cpus);
  void give_exclusive(int state, int parent, const Mask& cpus);
  void take_exclusive(int state, int parent, Mask* cpus);
  void update_tasks_6_12(int group, Mask* scratch);
  PartitionError remote_enable(int group, int state, Scratch* s);
  void remote_disable(int group, Scratch* s);
  void remote_update(int group, const Mask* exclusive, const Mask& wanted, Scratch* s);
  void partition_effective(int group, Mask* out);
  bool update_one_6_12(int group, bool first, bool force, Scratch* s);
  void update_below_6_12(int from, bool force, Scratch* s);
  void update_siblings_6_12(int parent, int except, Scratch* s);
  bool alone_with_its_cpus(int group) const;
  PartitionError parent_effective(int group, PartitionStep step, const Mask* next, Scratch* s);
  bool write_invalidates(int group, const Cpuset& trial, bool exclusive_file);
  Outcome write_cpus_6_12(int group, Cpuset trial);
  Outcome write_exclusive(int group, std::string_view text);
  Outcome exclusive_conflict(int group, const Cpuset& trial) const;
  void set_partition_6_12(int group, int state);
  bool hotplug_root_6_12();
  void hotplug_6_12(int group);

  // Tasks (tasks.cc).
  Outcome write_procs(int group, std::string_view text, bool whole, const Caller& caller);
  Outcome attach(int group, int tid, bool whole, const Caller& caller);
  Outcome can_attach(int css_group, const std::vector<int>& tids) const;
  void cpuset_attach(int css_group, int old_css, const std::vector<int>& tids);
  void cpuset_attach_task(int css_group, Task* task, const Mask& mems);
  Outcome fork(int tid, int child_tid, bool thread);
  Outcome exit(int tid);
  void wake(Task* task);
  Outcome set_affinity(int tid, const Mask& mask, const Caller& caller);
  Mask guarantee_cpus(const Task& task) const;
  Mask allowed_for(const Task& task) const;  // cpuset_cpus_allowed()
  bool set_mask(Task* task,
                const Mask& mask) const;  // set_cpus_allowed_ptr(); false: no active CPU
  Outcome plug(int cpu, bool up);
};

// Text of a write without the white space around it.
std::string_view strip(std::string_view text);
// kstrtoull / kstrtoll with base 0: 0, EINVAL or ERANGE. One trailing newline is allowed.
int parse_unsigned(std::string_view text, uint64_t* value);
int parse_signed(std::string_view text, int64_t* value);
Outcome failure(int err, Why why, std::string_view group = {}, const Mask& cpus = {},
                const Mask& mems = {});

}  // namespace allot::model
