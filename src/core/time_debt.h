// A slice's turn where its work cannot be stopped: what ran over the end of a window is charged and
// paid back.
//
// At level launch a gate decides what may begin; what has begun ends when it ends. A kernel longer
// than its window, or than the cycle, would get its slice more than its share however well the
// windows are kept. So each agent keeps one number, what its slice owes:
//
//     window  |====A====|          B          |====A====|          B          |====A====|
//     runs    [AAAAAAAAAAAAAAAA]              |.........|                     |  [AAAAAA...
//     owes     0         ++++++                ---- pays                        --
//
//   outside its windows, its work runs          + what it takes of the card from the others
//   in its window, others' work still drains    - what they took
//   in its window, it is held back or drained   -
//
// Who owes more than kDebtToRepayNs says so and is held back until it owes nothing. The others plan
// as if it had no work and take its windows meanwhile, which is charged to them in turn: the sum
// over the slices stays near zero, so shares come out exactly over time whoever overran whom. What
// is owed to a slice lets it overrun later.
//
// What must not happen here: a slice that is held back while nobody is there to gain by it, unless
// its ceiling asks for it; time that is lost because all pay (then what they owe shrinks together).
// No clock, no system call.
#pragma once

#include <cstdint>
#include <span>

#include "core/time_policy.h"

namespace allot::core {

// Owned by one agent, for its own slice on one GPU. Neither allocates nor blocks.
class OverrunDebt {
 public:
  static constexpr int64_t kDebtToRepayNs = 10'000'000;  // less is not worth two more switches
  // Most that it may owe; a kernel that waits for the host counts as one that runs.
  static constexpr int64_t kMostDebtNs = 5'000'000'000;
  // Most that may be owed to it; of its own idle moments, and with a max, which it promises not to
  // pass by much.
  static constexpr int64_t kMostDueNs = 1'000'000'000;
  static constexpr int64_t kMostSparedNs = 5'000'000;

  // Since the last call its work ran on the card or did not. Before plan().
  void account(uint64_t now_ns, bool ran);
  // The work that ran up to the last account() had ended so long before; while it drained.
  void refund(uint64_t ns);

  // plan_gpu for all, slices[0] being the own one, whose grant it may close. `pays` of slices[0] is
  // not read.
  void plan(std::span<SliceDemand> slices, uint64_t now_ns, std::span<TimeGrant> grants);

  bool repays() const { return repays_; }
  bool in_window() const { return window_; }  // as if nobody paid
  int64_t debt_ns() const { return debt_; }   // below 0: is owed
  // How much of the card its work has where others drain in its window, or it in theirs.
  uint32_t part_permille() const { return counts_ ? kWhole / (1 + beside_) : kWhole; }
  void forget() { *this = OverrunDebt{}; }

 private:
  void add(int64_t ns, int64_t most_due_ns);
  void count_beside(std::span<const SliceDemand> slices, std::span<const TimeGrant> grants);
  int64_t charge(uint64_t ns) const;
  void account_span(uint64_t ns, bool window, bool ran);

  int64_t debt_ = 0;
  uint64_t last_ns_ = 0;
  uint64_t edge_ns_ = 0;  // when window_ turns over
  uint32_t part_ = 0;     // of the cycle, its windows
  uint32_t beside_ = 0;   // others whose work runs at the same time
  bool counts_ = false;   // there are windows to keep
  bool window_ = false;   // it is its own one, as if nobody paid
  bool wants_ = false;    // has work
  bool all_pay_ = false;
  bool capped_ = false;
  bool repays_ = false;
};

}  // namespace allot::core
