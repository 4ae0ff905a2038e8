// A slice found by the cgroup of a process: for processes that lost their environment and are no
// children of the slice, as sshd's, cron's and su's in a job or a unit.
//
// A slice claims a cgroup (`allot run --cgroup`); every process of its user in that cgroup, or
// below it, belongs to the slice. The claim is a hash of the group's hierarchy and path. Of several
// claims the deepest counts, and of equals the youngest. Nobody can claim the root.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace allot::shm {

// The claim of the calling process's own cgroup, in the first hierarchy where it is not in the
// root: version 2, systemd's, freezer, pids, then the others; 0 where there is none. Reads /proc.
uint64_t claim_of_own_cgroup();

// Finds the slice in use of this user that claims the cgroup of the calling process or one above;
// writes its path to `out` (kPathBytes). Errors: kNotFound. Reads /proc and the folder.
Result<void> find_slice_of_cgroup(const char* folder, char* out);

// Finds the slice that the file `self` of the folder names: for a container, whose processes are
// all of one slice. The file must belong to the folder's owner, who is not us. Its first line is a
// name, or the path of a slice's file. Errors: kNotFound (no such file, or an empty one), kBadValue
// (another owner, or no name).
Result<void> find_slice_of_self(const char* folder, char* out);

}  // namespace allot::shm
