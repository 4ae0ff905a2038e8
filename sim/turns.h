// Who has the GPU after whom, and what a change costs. Pure: no clock, no lock, no waiting;
// timeline.h has those.
//
// A context's group is granted the GPU from a moment on. Alone it keeps it. Once another group
// waits, the grant ends with the timeslice that runs then (timeslices are counted from the grant's
// start), or at once when the group runs dry. Groups that wait have their turn in the order of
// their places, as on a card's runlist.
//
// A change of contexts begins when the leaving one has ended and the coming one is ready. What it
// costs depends on what it must move, measured on H100 and H200 (driver 580): 115 us between two
// contexts that have run dry (two decode loops in turn: 769 + 769 steps a second of 0.536 ms); 35
// us more to stop a kernel in its middle and save it, and 75 us more to take one up again. So a
// kernel that comes alone beside one that fills the card costs that one 340 us in two changes (wait
// beside full, timeslices of 20 to 2,048 us), and two full loads lose 225 us at each (45 + 45 % of
// alone with timeslices of 2,048 us).
#pragma once

#include <cstdint>

#include "machine.h"

namespace allot::sim {

struct SwitchCosts {
  int64_t change_ns = 115'000;
  int64_t save_ns = 35'000;
  int64_t restore_ns = 75'000;

  // The same in proportion for a change that saves one kernel and restores another in so long.
  static SwitchCosts of_total(int64_t total_ns);
};

inline constexpr int64_t kDefaultSwitchNs = 225'000;
inline constexpr int64_t kMaxLagNs = 50'000'000;  // what a busy machine keeps a thread waiting
inline constexpr uint32_t kDefaultTimesliceUs =
    2048;  // what libcuda sets on a context's compute group

// The decisions about one GPU. Whoever calls holds its lock. `now` is when the caller looks: later
// than the moments that it tells of, because threads wake up late.
class Turns {
 public:
  // `alive(slot)`: does the process live; `wake(group)`: its thread shall look again.
  Turns(Timeline& line, const SwitchCosts& costs, bool (*alive)(uint32_t), void (*wake)(Group&))
      : line_(line), costs_(costs), alive_(alive), wake_(wake) {}

  // The group has had work since `ready_ns`, and holds nothing.
  void ask(uint32_t index, int64_t ready_ns, int64_t now);
  // The holder's grant ends at `at`, in the middle of a kernel or not; the next one has its turn.
  void leave(int64_t at, int64_t now, bool in_kernel);
  // The holder has come to its grant's end. True when it may continue, because nobody waits.
  bool go_on(uint32_t index, int64_t now, bool in_kernel);
  // Gives the GPU out when nobody has it, and takes it from a holder that should have left long
  // ago.
  void settle(int64_t now);
  bool held_by(uint32_t index) const { return line_.running != 0 && line_.current == index + 1; }

 private:
  uint32_t next_waiter() const;
  void grant(uint32_t number, int64_t now);
  int64_t span_ns(const Group& group) const;

  Timeline& line_;
  const SwitchCosts& costs_;
  bool (*alive_)(uint32_t);
  void (*wake_)(Group&);
};

}  // namespace allot::sim
