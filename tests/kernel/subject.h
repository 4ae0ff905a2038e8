// Tasks that do what the guest driver tells them: make a thread or a process, sleep, exit.
//
// They share the driver's memory (CLONE_VM), so a command is a word in memory and a futex. None of
// them has a thread-local area of its own: a subject calls the kernel by the instruction alone and
// must never enter the C library. Between commands every subject sleeps, which is what the model
// assumes.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace allot::kernel_test {

struct Slot;

class Subjects {
 public:
  Subjects();
  // The driver (virtual id 1) or a subject makes a child. cgroup_fd >= 0: clone3 into that group.
  // Returns 0 or the errno of the clone. The child and its parent sleep when this returns.
  int fork(int parent, int child, bool thread, int cgroup_fd = -1);
  int wake(int id);
  // A leader ends its process with all threads, another thread only itself. Gone when this returns.
  int exit(int id);
  void exit_all();
  // A computing load for the time-share tests: spins until stopped.
  int spin(int id, bool on);

  int real(int id) const;         // 0 when there is none
  int virtual_of(int tid) const;  // 0 when it is none of ours
  bool known(int id) const { return slots_.count(id) != 0; }
  const std::map<int, Slot*>& all() const { return slots_; }
  int process(int id) const;  // virtual id of the leader

 private:
  Slot* take();
  void give_back(int id);
  bool command(Slot* slot, int what);
  void wait_sleeping(int tid);

  std::map<int, Slot*> slots_;
  std::map<int, int> by_real_;
};

}  // namespace allot::kernel_test
