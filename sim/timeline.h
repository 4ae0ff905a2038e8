// Who runs on a GPU when: timeslices between contexts, channels that are stopped, and their costs.
//
// A GPU's work is laid out on a timeline of CLOCK_MONOTONIC. A context's channel group is *granted*
// a stretch [start, end) of it; its executor lays kernels into the grant end to end and merely
// sleeps until each one's end has come. Waking up late therefore costs nothing: the next kernel,
// and the next group's grant, start where the last one ended on the timeline, not where somebody
// woke. That keeps shares exact on a machine with few, slow cores.
//
//   group A |####k1####|###k2###|##k3 (cut)|                      |##k3 (rest)##|
//   group B                                 |switch|####k1####|...|
//           ^ start                         ^ end: 2048 us after start, as B waits
//
// A group that runs dry gives the rest of its timeslice up. A group alone keeps the GPU without
// switches; who comes to wait while it runs ends its grant with the timeslice that runs then, also
// when that moment has just passed: what the executor has not told to be done yet is laid out
// again. A holder that does not come at its end (it was killed, or has no CPU) loses the GPU to the
// first waiter that looks. Catching up is bounded by kMaxLagNs. Who has its turn when, and what a
// change costs: turns.h.
#pragma once

#include <cstdint>

#include "machine.h"
#include "turns.h"

namespace allot::sim {

// A place in the GPU's schedule; UINT32_MAX when all are taken. Not runnable until acquire().
uint32_t open_group(uint32_t gpu);
void close_group(uint32_t gpu, uint32_t group);
void set_timeslice(uint32_t gpu, uint32_t group, uint32_t us);
// Channels disabled: the running kernel stops where it is and keeps its progress.
void stop_group(uint32_t gpu, uint32_t group);
void resume_group(uint32_t gpu, uint32_t group);
// Ends the group's grant now (RM's PREEMPT).
void preempt_group(uint32_t gpu, uint32_t group);

// The executor's side. One thread per group.
class GpuHold {
 public:
  GpuHold(uint32_t gpu, uint32_t group) : gpu_(gpu), group_(group) {}
  // Runs `duration_ns` of device time, not before `ready_ns`; returns its end on the timeline and
  // returns when that moment has come. Blocks over timeslices of others and while stopped. With
  // `quit` set meanwhile (by another thread, followed by kick()), returns early.
  int64_t run(int64_t duration_ns, int64_t ready_ns, const std::atomic<bool>& quit);
  // No more work for now: the rest of the timeslice goes to whoever waits.
  void idle();
  // Waits while the group is stopped.
  void wait_resumed(const std::atomic<bool>& quit);
  void kick();

 private:
  bool acquire(int64_t ready_ns, const std::atomic<bool>& quit);
  bool extend(bool in_kernel);

  uint32_t gpu_, group_;
  bool held_ = false;
  uint64_t grant_ = 0;
  int64_t at_ns_ = 0;  // this group's work is laid out up to here
};

}  // namespace allot::sim
