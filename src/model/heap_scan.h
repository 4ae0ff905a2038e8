// How a cpuset write reaches every task of the group while tasks are being forked: the heap scan of
// Linux 2.6.25 (cgroup_scan_tasks), and what replaced it.
//
// Historical form. The list cannot be locked while tasks are updated, so the scan works in rounds:
//   walk     every task of the list that fails the test and was started after the latest one
//            already processed goes into a heap of 512 by start time; when the heap is full the
//            later started stay out
//   process  every task in the heap is updated; the latest start time among them is remembered
//   again    until a walk finds nothing
// so that a task forked meanwhile is found by the next walk. What its own comment promises is less:
// only tasks that were members for the whole call are sure to be processed. The hole:
//
//   parent P: fork  copy mask (old) . start time 5 ........................ on the list
//   scan                                    walk: P(1) Q(9)  process  latest = 9      walk: nothing
//
// The child started at 5, before 9, so it counts as done: it keeps the old mask.
//
// Today. css_task_iter walks the list under a lock that only list changes take, and fork itself,
// once the child is on the list, copies the parent's mask again (cpuset_fork). Either the walk
// meets the child, or the parent had its new mask already when the child copied it.
//
// Everything here advances in single steps, so that a test can put a fork between any two of them.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

namespace allot::model {

// A task as the scan sees it: in the old or the new mask, and when it was started.
struct ScanTask {
  int tid = 0;
  uint64_t start_time = 0;
  bool updated = false;        // its mask is the new one
  bool member_before = false;  // on the list when the scan began
};

// The steps of a fork that matter, in order. Which of them exist depends on the form.
enum class ForkStep : uint8_t { kCopyMask, kStamp, kLink, kCopyAgain, kDone };

struct Forking {
  int parent = 0;
  ScanTask child;
  ForkStep next = ForkStep::kCopyMask;
};

enum class ScanForm : uint8_t { kHistorical, kToday };

// A group's task list, one scan over it, and any number of forks under way.
class HeapScan {
 public:
  static constexpr size_t kHeapSlots = 512;  // PAGE_SIZE / sizeof(pointer)

  // heap_slots: smaller ones make overflow cheap to test.
  explicit HeapScan(ScanForm form, size_t heap_slots = kHeapSlots)
      : form_(form), slots_(heap_slots) {}

  // A member of the group. Tasks start in the order in which they are added.
  void add_member(int tid);

  // One step of the scan; false when it is over. begin() marks the members it must reach.
  void begin();
  bool step();
  bool finished() const { return phase_ == Phase::kOver; }

  // Begins a fork of a member; advance_fork() performs its next step; false when it is complete.
  size_t begin_fork(int parent, int child);
  bool advance_fork(size_t fork);
  bool fork_done(size_t fork) const { return forks_.at(fork).next == ForkStep::kDone; }

  const std::deque<ScanTask>& members() const { return list_; }
  // Members that still have the old mask: escapes, once scan and forks are over.
  std::vector<int> escaped() const;
  int rounds() const { return rounds_; }
  size_t overflowed() const {
    return overflowed_;
  }  // tasks that a full heap put off to a later round

 private:
  enum class Phase : uint8_t { kIdle, kWalk, kProcess, kOver };
  ScanTask* find(int tid);
  void insert(const ScanTask& task);
  void end_walk();

  ScanForm form_;
  size_t slots_;
  Phase phase_ = Phase::kIdle;
  std::deque<ScanTask> list_;
  std::vector<Forking> forks_;
  std::vector<ScanTask> heap_;  // of this round, by start time
  size_t cursor_ = 0;           // next list position of the walk
  size_t next_heap_ = 0;
  uint64_t latest_ = 0;  // start time of the latest one processed
  uint64_t clock_ = 0;
  int rounds_ = 0;
  size_t overflowed_ = 0;
};

// The hole, step by step, in the words of a log; with today's form the same fork is caught.
std::vector<std::string> fork_race(ScanForm form);

}  // namespace allot::model
