// What happens to a process whose agent's thread is lost while the process lives: a filter kills
// threads, a debugger holds one, a call into the kernel never returns.
//
// The prober checks. When the agent has not completed a round for 2 s of the prober's own running
// time (a process stopped with SIGSTOP does not count), all channels of the process are enabled
// again and its clients say that nothing limits it. A slice that fails closed and has limits of GPU
// time refuses later submissions with CUDA_ERROR_NOT_PERMITTED. The log gets one line. An agent
// that runs again after all resumes its work.
//
// What must not happen here: channels stay closed after their agent is lost; a slow machine is
// taken for a loss. Not noticed: a loss while the prober itself is blocked in the driver, or is
// lost too.
#pragma once

namespace allot::shim {

// The agent, once a round. True when it had been given up: nothing is as it left it.
bool agent_runs();

// The prober, after each look that found the process active.
void watch_agent();

// In a forked child that starts afresh.
void forget_agent_watch();

}  // namespace allot::shim
