// Who holds which CPUs: the ledger that keeps concurrent runs from handing out the same ones.
//
// One small file per lease in a folder that all runs of a machine (or of a user) share, and one
// lock file. Reading, planning and adding happen under the lock, so two runs can never both see a
// CPU free.
//
//   <folder>/cpus.lock                  locked while the set of leases is read and changed
//   <folder>/<name>.<pid>.<start>.lease  one lease; locked by its launcher for as long as it lives
//
// A lease counts while any of three holds: its launcher has its file locked; the program it was
// given to is alive (pid and start time); its cpuset group has tasks, or, without a group, a
// process of its user that started after the program has a mask within its CPUs. So it outlives a
// killed launcher whose program continues, and ends by itself when the last process of the program
// ends. Files that no longer count are removed by whoever reads them next.
//
// In a folder of several users anybody can write anything. What is no plain file, no lease or not
// named after its lease is none; and of a user's lease the group and the program count only where
// they are that user's own, since root acts on them.
//
// Must not happen: the lock held while something can block without bound. It is held for file reads
// and writes, the plan (10 ms), the making of one group, and a move of a running process, which is
// cut off after 5 s where it has to be stopped.
#pragma once

#include <string>
#include <vector>

#include "cpus/affinity.h"
#include "cpus/cpu_set.h"
#include "cpus/failure.h"
#include "cpus/fs_root.h"

namespace allot::cpus {

struct Lease {
  std::string name;
  CpuSet cpus;
  // CPUs that nobody else should get along with these: the siblings of a half-taken core.
  CpuSet blocked;
  bool exclusive = false;
  ProcessId launcher;
  ProcessId member;   // the program; pid 0 until it is known
  std::string group;  // absolute path of its cpuset group; empty without one
  CpuSet mems;
  uint32_t owner = 0;  // user of the file; not stored
};

// Whether anybody is left in a lease whose program has ended: see above. Reads /proc.
// Without a group only an exclusive lease of part of the CPUs outlives its program.
bool anybody_left(const FsRoot& fs, const Lease& lease);

// Where leases are kept: `dir` if given (ALLOT_DIR), else /run/allot if root has made it and it can
// be written, else /dev/shm/allot-<uid>, which is made. Two users see each other's leases only in
// the first two.
std::string lease_folder(const char* dir);

// The ledger, locked from open() until it is destroyed.
class LockedLedger {
 public:
  // Errors: kNoPermission, kSystem; kSystem with ETIMEDOUT when another run held it for 10 s.
  static Expected<LockedLedger> open(const std::string& folder);
  LockedLedger(LockedLedger&& other) noexcept;
  LockedLedger& operator=(LockedLedger&&) = delete;
  ~LockedLedger();

  // All leases that count; removes those that do not.
  std::vector<Lease> read(const FsRoot& fs);
  // Writes a lease and locks its file. The descriptor (close-on-exec) must stay open for as long as
  // the launcher lives; closing it without remove() leaves the lease to its member and group.
  Expected<int> add(const Lease& lease);
  // Rewrites an own lease, for instance when its member is known.
  Expected<int> update(const Lease& lease, int fd);
  void remove(const Lease& lease);
  bool same_file(const Lease& a, const Lease& b) const { return path_of(a) == path_of(b); }
  // Rewrites a lease that somebody else may hold, for a placement that was changed.
  Expected<void> rewrite(const Lease& lease);

 private:
  LockedLedger(std::string folder, int fd) : folder_(std::move(folder)), fd_(fd) {}
  std::string path_of(const Lease& lease) const;

  std::string folder_;
  int fd_ = -1;
};

}  // namespace allot::cpus
