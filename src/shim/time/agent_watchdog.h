// What becomes of a process whose agent's thread is gone while the process lives: a filter that
// kills threads, a debugger that holds one, a call into the kernel that never returns.
//
// The prober asks. When the agent has not gone round its loop for 2 s of the prober's own running
// time (a process that was stopped as a whole is none of this), everything of the process runs
// again, the clients say that nothing holds it, and a slice that fails closed and has GPU time to
// hold refuses what is submitted from then on with CUDA_ERROR_NOT_PERMITTED. One line in the log.
// An agent that goes on after all takes everything up again.
//
// What must not happen here: channels left closed by an agent that is gone; a loss seen where a
// machine is slow. Not seen: a loss while the prober itself stands in the driver, or is gone too.
#pragma once

namespace allot::shim {

// The agent, once a round. True when it had been given up: nothing is as it left it.
bool agent_runs();

// The prober, after each look that found the process active.
void watch_agent();

// In a forked child that starts afresh.
void forget_agent_watch();

}  // namespace allot::shim
