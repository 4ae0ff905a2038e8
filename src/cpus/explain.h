// Why a change to a cpuset or a mask fails, or succeeds without doing what was asked: the sentence
// that names the cause.
//
// The kernel says EBUSY; the model knows which child it is. To that comes what the model cannot
// know: who manages the group and would undo the change, and whether this user may write at all.
//
// Must not happen: the change itself. explain can be run before or after the attempt.
#pragma once

#include <sys/types.h>

#include <string>

#include "cpus/tree_model.h"

namespace allot::cpus {

struct Explanation {
  int os_errno = 0;       // what the kernel answers; 0 = it takes the change
  bool effective = true;  // false: it takes it and yet does not do what was asked
  std::string cause;      // machine-readable, as in "child_needs"; "none"
  std::string text;       // one line; for a change without trouble it says what comes of it
  model::Reason reason;
};

// Writing `text` to a file of a group, given by its absolute path. Errors: kNotFound (the path is
// no file of the cpuset hierarchy), kUnsupported (a rule that the model does not know: partitions
// of kernels other than 6.1 and 6.12).
Expected<Explanation> explain_write(const FsRoot& fs, const TreeModel& tree,
                                    const std::string& path, const std::string& text);

// Moving a process into a group. Errors: kNotFound (the group is not in the hierarchy).
Expected<Explanation> explain_attach(const FsRoot& fs, const TreeModel& tree,
                                     const std::string& group, pid_t pid);

// sched_setaffinity on a process's first thread. Errors: kNotFound (no such process).
Expected<Explanation> explain_affinity(const FsRoot& fs, const TreeModel& tree, pid_t pid,
                                       const CpuSet& cpus);

}  // namespace allot::cpus
