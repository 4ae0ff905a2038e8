// One GPU's vote on the process's gate, at level `launch`, and the work behind the gate once it is
// closed.
//
// The gate is the process's, a window a GPU's: it is closed while any GPU's window is. Closed does
// not mean stopped: submitted work still runs; it drains. The prober, which looks every 0.5 ms
// meanwhile, sees when it ends; the middle between its last two looks counts.
//
// Used by the agent's thread only. Never blocks, never calls the driver.
#pragma once

#include <cstdint>

namespace allot::shim {

class AgentGate {
 public:
  void assign(uint32_t ordinal) { ordinal_ = ordinal; }

  // Opens or closes; from a closing on it drains.
  void set_open(bool open, uint64_t now_ns);
  // Says that it is going to be closed then (UINT64_MAX: not soon), so that little is on its way at
  // that time.
  void closes_at(uint64_t ns);
  // Whether submissions have to pass the gate at all. A closed one that nobody confirms opens by
  // itself.
  void guard(bool needed);

  bool draining() const { return draining_; }
  // It drains for so long that the neighbours should know.
  bool drains_long(uint64_t now_ns) const;
  // Once, when all has ended: true, and when that was. Asked every few milliseconds.
  bool drained(uint64_t now_ns, uint64_t* ended_ns);

 private:
  uint32_t ordinal_ = 0;
  bool open_ = true;
  bool draining_ = false;
  uint64_t closed_ns_ = 0;
};

// In a forked child that starts afresh.
void forget_gate_votes();

}  // namespace allot::shim
