// See heap_scan.h. Sources: kernel/cgroup.c of 2.6.25 (cgroup_scan_tasks, heap_insert),
// kernel/cgroup/cgroup.c and cpuset.c of 6.1 (css_task_iter, update_tasks_cpumask, cpuset_fork).
#include "model/heap_scan.h"

#include <algorithm>

namespace allot::model {

void HeapScan::add_member(int tid) {
  list_.push_back({tid, ++clock_, false, false});
}

ScanTask* HeapScan::find(int tid) {
  auto found = std::find_if(list_.begin(), list_.end(),
                            [&](const ScanTask& task) { return task.tid == tid; });
  return found == list_.end() ? nullptr : &*found;
}

void HeapScan::begin() {
  for (ScanTask& task : list_) task.member_before = true;
  phase_ = Phase::kWalk;
  cursor_ = 0;
  rounds_ = 1;
}

// Keeps the earliest started; a full heap gives up its latest for an earlier one.
void HeapScan::insert(const ScanTask& task) {
  auto later = [](const ScanTask& a, const ScanTask& b) { return a.start_time < b.start_time; };
  heap_.insert(std::upper_bound(heap_.begin(), heap_.end(), task, later), task);
  if (heap_.size() > slots_) {
    heap_.pop_back();
    ++overflowed_;
  }
}

void HeapScan::end_walk() {
  if (form_ == ScanForm::kToday || heap_.empty()) {
    phase_ = Phase::kOver;
    return;
  }
  phase_ = Phase::kProcess;
  next_heap_ = 0;
}

bool HeapScan::step() {
  if (phase_ == Phase::kIdle || phase_ == Phase::kOver) return false;
  if (phase_ == Phase::kWalk) {
    if (cursor_ >= list_.size()) {
      end_walk();
      return phase_ != Phase::kOver;
    }
    ScanTask& task = list_[cursor_++];
    if (form_ == ScanForm::kToday) {
      task.updated = true;
    } else if (!task.updated && task.start_time > latest_) {
      insert(task);
    }
    return true;
  }
  if (ScanTask* task = find(heap_[next_heap_].tid)) task->updated = true;
  if (++next_heap_ == heap_.size()) {
    latest_ = heap_.back().start_time;
    heap_.clear();
    cursor_ = 0;
    phase_ = Phase::kWalk;
    ++rounds_;
  }
  return true;
}

size_t HeapScan::begin_fork(int parent, int child) {
  Forking forking;
  forking.parent = parent;
  forking.child.tid = child;
  forks_.push_back(forking);
  return forks_.size() - 1;
}

bool HeapScan::advance_fork(size_t fork) {
  Forking& forking = forks_.at(fork);
  const ScanTask* parent = find(forking.parent);
  switch (forking.next) {
    case ForkStep::kCopyMask:
      forking.child.updated = parent != nullptr && parent->updated;
      forking.next = ForkStep::kStamp;
      return true;
    case ForkStep::kStamp:
      forking.child.start_time = ++clock_;
      forking.next = ForkStep::kLink;
      return true;
    case ForkStep::kLink:
      list_.push_back(forking.child);
      forking.next = form_ == ScanForm::kToday ? ForkStep::kCopyAgain : ForkStep::kDone;
      return forking.next != ForkStep::kDone;
    case ForkStep::kCopyAgain:
      if (parent != nullptr) find(forking.child.tid)->updated = parent->updated;
      forking.next = ForkStep::kDone;
      return false;
    case ForkStep::kDone:
      return false;
  }
  return false;
}

std::vector<int> HeapScan::escaped() const {
  std::vector<int> tids;
  for (const ScanTask& task : list_) {
    if (!task.updated) tids.push_back(task.tid);
  }
  return tids;
}

std::vector<std::string> fork_race(ScanForm form) {
  HeapScan scan(form);
  std::vector<std::string> log;
  scan.add_member(1);
  size_t fork = scan.begin_fork(1, 2);
  scan.advance_fork(fork);
  log.push_back("task 1 forks task 2: the old mask is copied");
  scan.advance_fork(fork);
  log.push_back("task 2 has its start time, but is not on the group's list yet");
  scan.add_member(3);
  log.push_back("task 3 is started later and is on the list");
  scan.begin();
  scan.step();
  scan.step();
  log.push_back("the scan walks the list: it sees 1 and 3");
  if (form == ScanForm::kHistorical) {
    scan.step();
    scan.step();
    scan.step();
    log.push_back("1 and 3 are updated; the latest start time processed is that of 3");
  }
  scan.advance_fork(fork);
  log.push_back("task 2 comes onto the list");
  if (form == ScanForm::kToday) {
    scan.advance_fork(fork);
    log.push_back("fork copies the mask of task 1 again (cpuset_fork): it is the new one");
  }
  while (scan.step()) {
  }
  if (form == ScanForm::kHistorical)
    log.push_back("the next walk passes task 2 over: it started before 3");
  log.push_back(scan.escaped().empty() ? "every task has the new mask"
                                       : "task 2 keeps the old mask: it escaped");
  return log;
}

}  // namespace allot::model
