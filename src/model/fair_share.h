// CPU shares of busy tasks that may each run on some CPUs only: max-min fair water-filling.
//
// Every task wants a whole CPU and can use at most one at a time; a CPU can be divided at will
// among the tasks allowed on it. Shares rise together, in proportion to weight, until a set of
// tasks has used up the CPUs it is confined to; those stop, the others continue. The level at which
// that happens is found exactly, by cuts of a flow network from tasks to CPUs, not by steps. It is
// what a scheduler that balances well gives over seconds: a bound for comparison, and the
// prediction that `plan` prints.
#pragma once

#include <vector>

#include "model/mask.h"

namespace allot::model {

struct ShareTask {
  Mask allowed;         // CPUs it may run on; those not in `cpus` do not count
  double weight = 1.0;  // relative; > 0
  double demand = 1.0;  // of one CPU, 0..1: what it would use alone
};

// The share of one CPU that each task gets, 0..1, in the order of `tasks`. A task without an
// allowed CPU gets 0. cpus: those that are online. Pure; allocates; cost grows with tasks^2 x CPUs.
std::vector<double> fair_shares(const std::vector<ShareTask>& tasks, const Mask& cpus);

}  // namespace allot::model
