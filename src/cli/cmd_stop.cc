// allot stop: end everything that runs in a slice, as docker stop does: SIGTERM, and SIGKILL for
// what is left after a while.
//
// The launcher gets no signal: it ends with its program and removes the slice. But a stopped one is
// continued, and where its program cannot be seen from here it is told instead: it passes signals
// on. This command itself may be in the slice; it does not count.
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "cli/commands.h"
#include "cli/failure.h"
#include "cli/log/deeds.h"
#include "cli/output.h"
#include "cli/region/open_slice.h"
#include "cli/region/region_view.h"
#include "cli/slice_spec.h"
#include "cli/stop_members.h"
#include "cli/usage.h"
#include "sys/clock.h"
#include "sys/process.h"

namespace allot::cli {
namespace {

constexpr int kStopLookMs = 20;
constexpr double kKillPatienceSeconds = 10;   // for the kernel to end what was killed
constexpr double kHiddenPatienceSeconds = 1;  // for whoever is in use of it and not to be seen

struct StopOptions {
  std::string name;
  double timeout_seconds = 10;
};

// What one round of signals came to.
struct Told {
  Pids pids;          // who got it
  Pids denied;        // whom we may not signal
  bool over = false;  // nobody is left
  bool hidden = false;
};

class Stopping {
 public:
  Stopping(const StopOptions& options, const Ending& ending, const shm::Slice* slice)
      : options_(options), ending_(ending), slice_(slice) {}

  // Signals each member once, newcomers too, until nobody is left, nobody can be reached, or the
  // time is over.
  Told signal_all(int number, double seconds) {
    const uint64_t begin = sys::monotonic_ns();
    Told told;
    bool launcher_told = false;
    double unreachable_since = -1;
    for (;;) {
      const Pids here = ending_.members();
      for (const uint32_t pid : here) {
        if (told.pids.contains(pid) || told.denied.contains(pid)) continue;
        const int why = signal_one(ending_.members, pid, number);
        if (why == EPERM) told.denied.insert(pid);
        if (why == 0) told.pids.insert(pid);
        if (why == 0 && number == SIGTERM) signal_one(ending_.members, pid, SIGCONT);
      }
      told.over = !ending_.used();
      if (told.over) return told;
      const double past = static_cast<double>(sys::monotonic_ns() - begin) / 1e9;
      if (past >= seconds) return told;
      if (here.empty()) {
        wake_launcher();
        told.hidden = !why_hidden().empty();
        if (told.hidden && !launcher_told) launcher_told = tell_launcher(number, &told);
      }
      const bool reached =
          launcher_told || (here.empty() ? !told.hidden : !told.denied.contains(*here.begin()));
      if (reached) {
        unreachable_since = -1;
      } else if (unreachable_since < 0) {
        unreachable_since = past;
      } else if (past - unreachable_since >= kHiddenPatienceSeconds) {
        return told;
      }
      poll(nullptr, 0, kStopLookMs);
    }
  }

  // Why there is still somebody.
  [[noreturn]] void refuse_left(const Told& told) const {
    const Pids left = ending_.members();
    if (!told.denied.empty()) {
      refuse("stop: '{}': process {} may not be signalled by this user; ask its owner or root",
             options_.name, pids_text(told.denied));
    }
    if (const std::string why = why_hidden(); left.empty() && !why.empty()) {
      refuse(
          "stop: '{}' is still in use, but its processes cannot be seen from here: {}; run the "
          "command where 'allot run' was started",
          options_.name, why);
    }
    const Pids launcher = ending_.launcher();
    if (left.empty() && !launcher.empty()) {
      refuse(
          "stop: nothing is left in '{}' but 'allot run' (process {}), which has not noticed; "
          "end it: kill {}",
          options_.name, pids_text(launcher), pids_text(launcher));
    }
    refuse("stop: '{}' is still in use{}; see 'allot ps {}'", options_.name,
           left.empty() ? "" : " by process " + pids_text(left) + ", which SIGKILL has not ended",
           options_.name);
  }

  static std::string pids_text(const Pids& pids) {
    std::string text;
    for (const uint32_t pid : pids) text += fmt::format("{}{}", text.empty() ? "" : ", ", pid);
    return text;
  }

 private:
  std::string why_hidden() const { return slice_ == nullptr ? "" : hidden_why(*slice_); }

  // A launcher that was stopped (Ctrl-Z, SIGSTOP) does not see that its program has ended.
  void wake_launcher() const {
    for (const uint32_t pid : ending_.launcher()) {
      const auto process = sys::read_process(sys::Root{}, pid);
      if (process && process->state == 'T') signal_one(ending_.launcher, pid, SIGCONT);
    }
  }

  // It passes on what can be caught.
  bool tell_launcher(int number, Told* told) const {
    if (number == SIGKILL) return false;
    bool any = false;
    for (const uint32_t pid : ending_.launcher()) {
      const int why = signal_one(ending_.launcher, pid, number);
      if (why == EPERM) told->denied.insert(pid);
      if (why == 0) told->pids.insert(pid);
      any = any || why == 0;
    }
    return any;
  }

  const StopOptions& options_;
  const Ending& ending_;
  const shm::Slice* slice_;
};

void note_own_shell(const StopOptions& options, const Ending& ending) {
  if (ending.members().contains(static_cast<uint32_t>(getppid())))
    note(fmt::format("stop: this shell is in '{}' and ends with it", options.name));
}

// Its launcher is faster, or was killed. One that ends only now leaves the file to us, who are in
// the slice.
void remove(const Ending& ending, const std::string& path) {
  constexpr int kLooks = 100;
  for (int i = 0; i < kLooks; ++i) {
    const Result<void> removed = shm::remove_slice(path.c_str(), sys::current_pid());
    if (removed || removed.error().code != Errc::kExists || ending.after_us()) return;
    poll(nullptr, 0, kStopLookMs);
  }
}

std::string end(const StopOptions& options, const Ending& ending, OpenSlice* slice) {
  note_own_shell(options, ending);
  Stopping stopping(options, ending, slice == nullptr ? nullptr : &**slice);
  Told told = stopping.signal_all(SIGTERM, options.timeout_seconds);
  Pids killed;
  if (!told.over && told.denied.empty()) {
    killed = ending.members();
    if (!killed.empty() || !told.hidden)
      told.over = stopping.signal_all(SIGKILL, kKillPatienceSeconds).over;
  }
  if (!told.over) stopping.refuse_left(told);
  if (slice != nullptr) remove(ending, slice->path());
  std::string text = fmt::format("{}: stopped ({} process{}", options.name, told.pids.size(),
                                 told.pids.size() == 1 ? "" : "es");
  if (!killed.empty())
    text += fmt::format("; killed after {} s: {}", options.timeout_seconds,
                        Stopping::pids_text(killed));
  return text + ")";
}

std::string stop(const StopOptions& options) {
  check_name("stop", options.name);
  const std::string folder = region_folder(false);
  const bool of_gpus =
      !folder.empty() && access(slice_path(folder, options.name).c_str(), F_OK) == 0;
  if (!of_gpus) {
    if (const Ending cpus = ending_of_cpus(options.name); cpus.used)
      return end(options, cpus, nullptr);
  }
  OpenSlice slice("stop", options.name);
  return end(options, ending_of(*slice), &slice);
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
      "A slice of CPUs alone is ended too. A process that is stopped (SIGSTOP) is continued.\n"
      "\n"
      "Examples:\n"
      "  allot stop alice\n"
      "  allot stop alice --timeout 0        kill at once");
  sub->callback([options, exit_status] {
    print(logged("stop", options->name, [&] { return stop(*options); }) + "\n");
    *exit_status = kExitOk;
  });
}

}  // namespace allot::cli
