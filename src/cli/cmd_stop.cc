// allot stop: end everything that runs in a slice, as docker stop does: SIGTERM, and SIGKILL for
// what is left after a while.
//
// In the slice is who holds a slot of it, who was started with it in the environment, and who
// inherited the launcher's descriptor. The launcher gets no signal: it ends with its program and
// removes the slice. What must not happen here: a signal to a process that got the number of one
// that has ended meanwhile; so each is held by a pidfd and looked at again before it is signalled.
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "cli/commands.h"
#include "cli/failure.h"
#include "cli/output.h"
#include "cli/region/open_slice.h"
#include "cli/slice_spec.h"
#include "cli/usage.h"
#include "core/shared.h"
#include "shm/living.h"
#include "sys/clock.h"
#include "sys/process.h"

namespace allot::cli {
namespace {

constexpr int kStopLookMs = 20;
constexpr double kKillPatienceSeconds = 10;  // for the kernel to end what was killed

struct StopOptions {
  std::string name;
  double timeout_seconds = 10;
};

using Pids = std::set<uint32_t>;

bool add_pid(void* pids, uint32_t pid) {
  static_cast<Pids*>(pids)->insert(pid);
  return true;
}

// Processes that may be signalled. A process of another pid namespace has another number here; it
// is found in /proc where that namespace is below ours.
Pids members(const shm::Slice& slice) {
  Pids pids;
  const shm::Living living(slice);
  const AllotSliceFile& file = *slice.file;
  const auto home = sys::pid_namespace(sys::Root{}, 0);
  const uint32_t high = core::slots_of(file);
  for (uint32_t i = 0; home && i < high; ++i) {
    const uint64_t word = core::load(file.slot_words[i]);
    if (ALLOT_SLOT_STATE(word) != ALLOT_SLOT_LIVE || !living.slot(i)) continue;
    if (core::load(file.slots[i].pid_namespace) == *home) pids.insert(ALLOT_SLOT_PID(word));
  }
  shm::visit_members(slice, add_pid, &pids);
  const auto launcher = static_cast<uint32_t>(std::max(file.header.launcher_pid, 0));
  const bool became_program = pids.contains(launcher) && !living.launcher_waits();
  if (!became_program) pids.erase(launcher);
  pids.erase(0);
  pids.erase(sys::current_pid());
  return pids;
}

// The number may be another process's by now: hold it, then look again.
void signal_member(const shm::Slice& slice, uint32_t pid, int number) {
  const long held = syscall(SYS_pidfd_open, pid, 0);
  if (held < 0) {
    if (errno == ENOSYS && members(slice).contains(pid)) kill(static_cast<pid_t>(pid), number);
    return;
  }
  const sys::Fd pidfd(static_cast<int>(held));
  if (members(slice).contains(pid)) syscall(SYS_pidfd_send_signal, pidfd.get(), number, nullptr, 0);
}

bool still_used(const shm::Slice& slice) {
  return (core::load(slice.file->header.flags) & ALLOT_SLICE_LEAVING) == 0 &&
         shm::slice_in_use(slice);
}

// Signals each member once, newcomers too, until nobody is left or the time is over.
Pids signal_all(const shm::Slice& slice, int number, double seconds) {
  const uint64_t end = sys::monotonic_ns() + static_cast<uint64_t>(seconds * 1e9);
  Pids told;
  for (;;) {
    const Pids here = members(slice);
    for (const uint32_t pid : here) {
      if (told.insert(pid).second) signal_member(slice, pid, number);
    }
    if (!still_used(slice)) return told;
    if (sys::monotonic_ns() >= end) return told;
    poll(nullptr, 0, kStopLookMs);
  }
}

std::string pids_line(const Pids& pids) {
  std::string text;
  for (const uint32_t pid : pids) text += fmt::format("{}{}", text.empty() ? "" : ", ", pid);
  return text;
}

void stop(const StopOptions& options) {
  check_name("stop", options.name);
  OpenSlice slice("stop", options.name);
  if (members(*slice).contains(static_cast<uint32_t>(getppid())))
    note(fmt::format("stop: this shell is in '{}' and ends with it", options.name));
  const Pids asked = signal_all(*slice, SIGTERM, options.timeout_seconds);
  Pids killed;
  if (still_used(*slice)) {
    killed = members(*slice);
    signal_all(*slice, SIGKILL, kKillPatienceSeconds);
  }
  if (still_used(*slice)) {
    const Pids left = members(*slice);
    refuse("stop: '{}' is still in use{}; it may be in another container, or another user's",
           options.name, left.empty() ? "" : " by process " + pids_line(left));
  }
  shm::remove_slice(slice.path().c_str(), 0);  // its launcher is faster, or was killed
  std::string text = fmt::format("{}: stopped ({} process{}", options.name, asked.size(),
                                 asked.size() == 1 ? "" : "es");
  if (!killed.empty())
    text += fmt::format("; killed after {} s: {}", options.timeout_seconds, pids_line(killed));
  print(text + ")\n");
}

}  // namespace

void add_stop(CLI::App& app, int* exit_status) {
  CLI::App* sub = app.add_subcommand("stop", "end everything that runs in a slice");
  const auto options = std::make_shared<StopOptions>();
  sub->add_option("name", options->name, "the slice, as 'allot ps' names it")
      ->required()
      ->type_name("NAME");
  sub->add_option("--timeout", options->timeout_seconds,
                  "how long its processes have to end by themselves (default: 10)")
      ->check(seconds_up_to(3600))
      ->type_name("SECONDS");
  sub->footer(
      "Sends SIGTERM to every process that was started in the slice, whether it uses a GPU or "
      "not;\n"
      "after the timeout SIGKILL to those that are left. 'allot run' then ends as its program "
      "did.\n"
      "\n"
      "Examples:\n"
      "  allot stop alice\n"
      "  allot stop alice --timeout 0        kill at once");
  sub->callback([options, exit_status] {
    stop(*options);
    *exit_status = kExitOk;
  });
}

}  // namespace allot::cli
