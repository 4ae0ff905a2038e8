// The cpuset file system: where this machine keeps it, and making, filling, reading back and
// removing groups in it, in version 1 and version 2.
//
// Version 1 enforces what is written or refuses it. Version 2 takes any list and silently falls
// back to the parent's CPUs when nothing of it is left, so every write is read back and compared.
// In both, a group that could not be made whole is removed again: a failure leaves nothing behind.
//
// Names: allot-<name>.<launcher's pid>.<its start time>. The name alone says whether the launcher
// is still there, so that any later run can remove what a killed one left, without a daemon.
//
// Must not happen: a write to a group that is not ours, or one below a unit that systemd manages
// and has not delegated (its next daemon-reload would undo it).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cpus/affinity.h"
#include "cpus/cpu_set.h"
#include "cpus/failure.h"
#include "cpus/fs_root.h"

namespace allot::cpus {

enum class CpusetKind { kNone, kV1, kV2 };

struct Hierarchy {
  CpusetKind kind = CpusetKind::kNone;
  std::string mount;     // "/sys/fs/cgroup/cpuset"
  std::string prefix;    // "cpuset." or "" (v1 mounted with noprefix)
  bool v2_mode = false;  // v1 mounted with cpuset_v2_mode: hotplug and effective sets as in v2
  std::string own;       // absolute path of the group that this process is in
  std::string base;      // where groups may be made; empty when nowhere
  std::string why_not;   // one line, when base is empty
  std::string file(std::string_view group, std::string_view name) const;
};

// Finds the hierarchy that carries cpusets and a place in it where this process may make groups.
// Never fails: without one, kind or base is empty and why_not says why. Any thread; allocates.
Hierarchy find_hierarchy(const FsRoot& fs);

// The group that a process is in, as an absolute path below the mount; nothing when it is gone or
// the process is outside what this mount shows.
std::optional<std::string> group_of(const FsRoot& fs, const Hierarchy& h, pid_t pid);

// One group's state as its files show it.
struct GroupState {
  std::string path;
  CpuSet cpus, mems;                                  // as written
  CpuSet effective_cpus, effective_mems;              // as in force
  bool cpu_exclusive = false, mem_exclusive = false;  // v1
  bool populated = false;                             // it, or one below it, has tasks
  std::string partition;  // v2: member, root, isolated, or "... invalid (why)"
};
// Errors: kNotFound (no such group), kSystem.
Expected<GroupState> read_group(const FsRoot& fs, const Hierarchy& h, const std::string& group);

// One file write, as it will be or has been done.
struct Step {
  enum class Op { kMkdir, kWrite, kRmdir } op = Op::kWrite;
  std::string path;  // of the file, or of the group for mkdir and rmdir
  std::string text;  // what is written
};
// The ids in a file of one a line: tasks, cgroup.procs, cgroup.threads. Empty without the file.
std::vector<pid_t> ids_in(const FsRoot& fs, const std::string& file);

// Does one step on the running kernel. Returns 0 or the errno.
int perform(const Step& step);

struct GroupSpec {
  std::string path;  // absolute, below Hierarchy::base
  CpuSet cpus, mems;
  bool exclusive = false;
  bool isolated = false;  // v2, with exclusive
  bool migrate = false;   // v1: pages follow who enters (version 2 always does so)
};
// What --exclusive does not keep away where there are no partitions.
std::string others_may_run(const CpuSet& cpus);
// Makes a v2 group a partition (root, or isolated) where this kernel and these rights allow; an
// empty text when it is one, else why not: the kernel's own words, and what others may do then.
std::string make_partition(const FsRoot& fs, const Hierarchy& h, const GroupSpec& spec);

// The writes that make a group, in an order in which none fails for want of an earlier one.
std::vector<Step> steps_to_make(const FsRoot& fs, const Hierarchy& h, const GroupSpec& spec);

// Makes the group and reads back that it has exactly what was asked for. Errors: with the kernel's
// errno and a text that names the file; kUnsupported (v2: the kernel granted another set). Removes
// what it had made. `note` takes a line when only the exclusive flag or the partition was refused,
// which does not fail the call: exclusivity among our own runs is the ledger's. Where enabling
// cpuset in the parent resets masks of the tasks below it (Linux before 6.2), they are put back,
// and `note` says so.
Expected<GroupState> make_group(const FsRoot& fs, const Hierarchy& h, const GroupSpec& spec,
                                std::string* note);

// Removes a group, waiting up to `wait_ms` for its last tasks to go. Returns 0, EBUSY or another
// errno.
int remove_group(const Hierarchy& h, const std::string& group, int wait_ms);

// "allot-<name>.<pid>.<start>", with what is not a letter, digit, "-" or "_" replaced.
std::string group_name(std::string_view name, const ProcessId& launcher);
// The launcher in a group's name; nothing when the name is not of that form.
std::optional<ProcessId> launcher_in_name(std::string_view name);

// Removes the empty groups below `base` whose launcher is gone, inner first. Returns their names.
std::vector<std::string> sweep(const FsRoot& fs, const Hierarchy& h);

// The groups directly below one, by their absolute paths.
std::vector<std::string> groups_below(const FsRoot& fs, const std::string& group);

// Moves a whole process (0 = the caller) into a group. Returns 0 or the errno: ENOSPC (v1: cpus or
// mems of the group are empty), ESRCH, EACCES, EBUSY and EOPNOTSUPP (v2). Safe between fork and
// exec.
int enter_group(const char* procs_file, pid_t pid);
std::string procs_file(const std::string& group);

}  // namespace allot::cpus
