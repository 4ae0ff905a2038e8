// Who runs on a GPU when: time slices between contexts, channels that are stopped, and their costs.
//
// A GPU's work is laid out on a timeline of CLOCK_MONOTONIC. A context's channel group is *granted* a
// stretch [start, slice end) of it; its executor lays kernels into the grant end to end and merely
// sleeps until each one's end has come. Waking up late therefore costs nothing: the next kernel, and
// the next group's grant, start where the last one ended on the timeline, not where somebody woke.
// That keeps shares exact on a machine with few, slow cores.
//
//   group A |####k1####|###k2###|##k3 (cut)|                      |##k3 (rest)##|
//   group B                                 |switch|####k1####|...|
//           ^ start                         ^ slice end (2048 us after start)
//
// A group that runs dry gives the rest of its slice up. A group alone keeps the GPU without switches.
// A holder that does not come at its slice's end (it was killed, or has no CPU) loses the GPU to the
// first waiter that looks. Catching up is bounded by kMaxLagNs.
//
// Modelled, from measurements on an H100: a switch between groups costs 200 us (45.4 + 45.4 % of solo
// for two busy tenants with 2048 us slices); ALLOT_SIM_SWITCH_US changes it.
#pragma once

#include <cstdint>

#include "machine.h"

namespace allot::sim {

inline constexpr int64_t kMaxLagNs = 50'000'000;   // what a busy machine keeps a thread waiting
inline constexpr uint32_t kDefaultSliceUs = 2048;  // what libcuda sets on a context's compute group

// A place in the GPU's schedule; UINT32_MAX when all are taken. Not runnable until acquire().
uint32_t open_group(uint32_t gpu);
void close_group(uint32_t gpu, uint32_t group);
void set_timeslice(uint32_t gpu, uint32_t group, uint32_t us);
// Channels disabled: the running kernel stops where it is and keeps its progress.
void stop_group(uint32_t gpu, uint32_t group);
void resume_group(uint32_t gpu, uint32_t group);
// Ends the group's slice now (RM's PREEMPT).
void preempt_group(uint32_t gpu, uint32_t group);

// The executor's side. One thread per group.
class GpuHold {
 public:
  GpuHold(uint32_t gpu, uint32_t group) : gpu_(gpu), group_(group) {}
  // Runs `duration_ns` of device time, not before `ready_ns`; returns its end on the timeline and
  // returns when that moment has come. Blocks over slices of others and while stopped. With `quit`
  // set meanwhile (by another thread, followed by kick()), returns early.
  int64_t run(int64_t duration_ns, int64_t ready_ns, const std::atomic<bool>& quit);
  // No more work for now: the rest of the slice goes to whoever waits.
  void idle();
  // Waits while the group is stopped.
  void wait_resumed(const std::atomic<bool>& quit);
  void kick();

 private:
  bool acquire(int64_t ready_ns, const std::atomic<bool>& quit);
  bool extend();

  uint32_t gpu_, group_;
  bool held_ = false;
  uint64_t grant_ = 0;
  int64_t at_ns_ = 0;  // this group's work is laid out up to here
};

}  // namespace allot::sim
