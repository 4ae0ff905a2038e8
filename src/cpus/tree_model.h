// The machine's cpuset tree as it is now, inside the kernel model: what a write would do is asked
// of the model, so plan and explain cannot say something else than what its comparison with real
// kernels has proved.
//
// Must not happen: a change to the machine. Everything here reads.
#pragma once

#include <string>

#include "cpus/cpuset_fs.h"
#include "cpus/failure.h"
#include "cpus/topology.h"
#include "model/cpuset.h"

namespace allot::cpus {

struct TreeModel {
  Hierarchy hierarchy;
  model::Cpusets model;
  std::string kernel;  // release, as in "6.1.0-18-cloud-amd64"

  // The model's path of a group ("/a") for an absolute one ("/sys/fs/cgroup/cpuset/a"); "" when it
  // is not below the mount. And back.
  std::string inside(const std::string& absolute) const;
  std::string absolute(const std::string& inside) const;
};

// Reads every group and which tasks are in it. Errors: kUnsupported (no cpuset hierarchy, or a v2
// partition in it on a kernel whose rules for them are not known), kNotFound (no CPUs). A task that
// starts or ends meanwhile may be missed, as in any reading of /proc. Allocates; some 20 small
// reads a group.
Expected<TreeModel> load_tree(const FsRoot& fs, const Topology& topology, const Hierarchy& h);

// The rules of which kernel apply: 6.1's before 6.2, 6.12's from there on.
model::Era era_of(const std::string& release);

// Whether the model's rules for v2 partitions are this kernel's: they differ between all versions.
bool partitions_known(const std::string& release);

// Does a step in the model. Returns its outcome.
model::Outcome predict(TreeModel* tree, const Step& step);

// Who manages a group, by its path: "systemd", "kubelet", "Docker", ... ; "" when nobody known
// does. A group that systemd delegated to us is nobody's.
std::string owner_of(const FsRoot& fs, const Hierarchy& h, const std::string& group);

// "EBUSY"; "" for 0.
std::string errno_name(int error);

}  // namespace allot::cpus
