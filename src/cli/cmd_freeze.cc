// allot freeze and allot thaw: pause the GPU work of a slice and resume it; its memory stays where
// it is.
//
// The order is one flag in the slice's file; its agents obey it, and say so in their clients. The
// command waits for that, for a bounded time, so that a reader may rely on the word "frozen". A
// process that has not used a GPU has nothing to pause, and starts frozen when it does. What must
// not happen here: "frozen" said of work that still runs.
#include <poll.h>

#include <algorithm>
#include <set>

#include "cli/commands.h"
#include "cli/cpus/cpu_slices.h"
#include "cli/failure.h"
#include "cli/log/deeds.h"
#include "cli/output.h"
#include "cli/region/agent_view.h"
#include "cli/region/open_slice.h"
#include "cli/slice_spec.h"
#include "cli/usage.h"
#include "core/counters.h"
#include "core/ledger.h"
#include "core/shared.h"
#include "shm/slice_file.h"
#include "sys/clock.h"

namespace allot::cli {
namespace {

constexpr int kThawLookMs = 1;

struct FreezeOptions {
  std::string name;
  double timeout_seconds = 5;
};

struct Progress {
  std::set<uint32_t> stopped;  // pids whose GPU work is paused
  std::set<uint32_t> running;  // pids whose agent has not answered yet, or cannot hold its work
  std::set<uint32_t> silent;   // pids whose agent cannot run (stopped by a signal, say)
};

Progress look(const shm::Slice& slice) {
  Progress progress;
  for (const ClientView& client : read_clients(*slice.file)) {
    if (client.untouched() || client.detached() || has_ended(slice, client)) continue;
    if (client.frozen()) {
      progress.stopped.insert(client.pid);
    } else {
      (client.answers ? progress.running : progress.silent).insert(client.pid);
    }
  }
  return progress;
}

std::string pids_text(const std::set<uint32_t>& pids) {
  std::string text;
  for (const uint32_t pid : pids) text += fmt::format("{}{}", text.empty() ? "" : ", ", pid);
  return text;
}

// Work at level observe cannot be stopped: say so before half of the slice is paused.
void refuse_observed(const shm::Slice& slice, const std::string& name) {
  for (const ClientView& client : read_clients(*slice.file)) {
    if (client.level != ALLOT_LEVEL_OBSERVE) continue;
    const std::string why = reason_text(client.reason);
    refuse(
        "freeze: the GPU work of process {} in '{}' is only observed ({}), so it cannot be paused; "
        "'allot set {} --level auto' may change that",
        client.pid, name, why.empty() ? "--level observe" : why, name);
  }
}

bool limits_time(const AllotSliceFile& file) {
  if (core::load(file.header.priority) != ALLOT_PRIORITY_NORMAL) return true;
  for (const AllotGpu& gpu : file.gpus) {
    if (core::load(gpu.share_permille) != 0 || core::load(gpu.max_permille) != 0) return true;
  }
  return false;
}

// Work that no client shows has no agent to pause it. There is none where such work is refused:
// where the slice fails closed and limits GPU time.
void refuse_unheld(const shm::Slice& slice, const std::string& name) {
  const AllotSliceFile& file = *slice.file;
  const bool closed = (core::load(file.header.flags) & ALLOT_SLICE_FAIL_CLOSED) != 0;
  if (closed && limits_time(file)) return;
  std::set<uint32_t> pids;
  for (uint32_t i = 0; i < core::slots_of(file); ++i) {
    const uint64_t word = core::load(file.slot_words[i]);
    if (ALLOT_SLOT_STATE(word) == ALLOT_SLOT_LIVE && core::load(file.slots[i].unheld_gpus) != 0)
      pids.insert(ALLOT_SLOT_PID(word));
  }
  if (pids.empty()) return;
  const std::string others = pids.size() == 1 ? "" : fmt::format(" and {} more", pids.size() - 1);
  refuse(
      "freeze: the GPU work of process {}{} in '{}' is not held (more than {} GPU clients in this "
      "slice), so it cannot be paused; nothing was changed. End some of the slice's processes",
      *pids.begin(), others, name, ALLOT_MAX_CLIENTS);
}

// Looks until `done` or the time is over, at least once.
template <class Done>
Progress wait_until(const shm::Slice& slice, double seconds, Done done) {
  const uint64_t end = sys::monotonic_ns() + static_cast<uint64_t>(seconds * 1e9);
  for (;;) {
    Progress progress = look(slice);
    if (done(progress) || sys::monotonic_ns() >= end) return progress;
    poll(nullptr, 0, kThawLookMs);
  }
}

std::string processes_text(size_t count, const shm::Slice& slice) {
  const std::vector<ClientView> clients = read_clients(*slice.file);
  const bool away = std::any_of(clients.begin(), clients.end(),
                                [](const ClientView& client) { return client.detached(); });
  if (count == 0) return away ? "its memory is on the host" : "none of its processes uses a GPU";
  return fmt::format("{} process{}", count, count == 1 ? "" : "es");
}

uint32_t flags_of(const shm::Slice& slice) {
  return core::load(slice.file->header.flags);
}

// What also is so of the slice, and how to change it.
std::string also_evicted(const shm::Slice& slice, const std::string& name, const char* text) {
  if ((flags_of(slice) & ALLOT_SLICE_EVICTED) == 0) return "";
  return fmt::format("; {}: 'allot restore {}' brings it back", text, name);
}

std::string freeze(const FreezeOptions& options) {
  check_name("freeze", options.name);
  refuse_cpus_alone("freeze", options.name);
  OpenSlice slice("freeze", options.name);
  shm::reclaim_dead(*slice);
  refuse_observed(*slice, options.name);
  refuse_unheld(*slice, options.name);
  const uint32_t before =
      __atomic_fetch_or(&slice->file->header.flags, ALLOT_SLICE_FROZEN, __ATOMIC_SEQ_CST);
  core::turn_clock(slice->file->header.frozen_clock, true, sys::monotonic_ns());
  slice.tell_agents();
  const Progress progress = wait_until(*slice, options.timeout_seconds, [](const Progress& p) {
    return p.running.empty() && p.silent.empty();
  });
  if (!progress.running.empty() || !progress.silent.empty()) {
    std::set<uint32_t> pids = progress.running;
    pids.insert(progress.silent.begin(), progress.silent.end());
    refuse(
        "freeze: '{}' is marked frozen, but the GPU work of process {} has not paused within {} s; "
        "watch it with 'allot ps', or undo it with 'allot thaw {}'",
        options.name, pids_text(pids), options.timeout_seconds, options.name);
  }
  return fmt::format("{}: {} ({}){}", options.name,
                     (before & ALLOT_SLICE_FROZEN) != 0 ? "was frozen already" : "frozen",
                     processes_text(progress.stopped.size(), *slice),
                     also_evicted(*slice, options.name, "it is evicted, too"));
}

std::string thaw(const FreezeOptions& options) {
  check_name("thaw", options.name);
  refuse_cpus_alone("thaw", options.name);
  OpenSlice slice("thaw", options.name);
  shm::reclaim_dead(*slice);
  const uint32_t before =
      __atomic_fetch_and(&slice->file->header.flags, ~ALLOT_SLICE_FROZEN, __ATOMIC_SEQ_CST);
  core::turn_clock(slice->file->header.frozen_clock, false, sys::monotonic_ns());
  slice.tell_agents();
  const Progress progress = wait_until(*slice, options.timeout_seconds,
                                       [](const Progress& p) { return p.stopped.empty(); });
  if (!progress.stopped.empty()) {
    refuse(
        "thaw: '{}' is thawed, but process {} has not resumed within {} s (stopped by a signal?); "
        "it resumes when it can",
        options.name, pids_text(progress.stopped), options.timeout_seconds);
  }
  const size_t count = progress.running.size() + progress.silent.size();
  return fmt::format("{}: {} ({}){}", options.name,
                     (before & ALLOT_SLICE_FROZEN) != 0 ? "thawed" : "was not frozen",
                     processes_text(count, *slice),
                     also_evicted(*slice, options.name, "but it is evicted and does not run"));
}

void add(CLI::App& app, const char* command, const char* what, const char* footer,
         std::string (*work)(const FreezeOptions&), int* exit_status) {
  CLI::App* sub = app.add_subcommand(command, what);
  const auto options = std::make_shared<FreezeOptions>();
  sub->add_option("name", options->name, "the slice, as 'allot ps' names it")
      ->required()
      ->type_name("NAME");
  sub->add_option("--timeout", options->timeout_seconds,
                  "how long to wait until all its processes obey (default: 5)")
      ->check(seconds_up_to(3600))
      ->type_name("SECONDS");
  sub->footer(footer);
  const std::string deed = command;
  sub->callback([options, work, deed, exit_status] {
    print(logged(deed, options->name, [&] { return work(*options); }) + "\n");
    *exit_status = kExitOk;
  });
}

}  // namespace

void add_freeze(CLI::App& app, int* exit_status) {
  add(app, "freeze", "pause a slice's GPU work, keeping its memory on the GPU",
      "At level channel running kernels pause in the middle; at level launch they end first.\n"
      "The programs wait at their next GPU call; processes that start later start frozen.\n"
      "A slice can stay frozen for any time. It is fine to freeze one that is frozen or has no\n"
      "GPU work.\n"
      "\n"
      "Example:\n"
      "  allot freeze alice",
      freeze, exit_status);
  add(app, "thaw", "resume a frozen slice",
      "It is fine to thaw a slice that is not frozen.\n"
      "\n"
      "Example:\n"
      "  allot thaw alice",
      thaw, exit_status);
}

}  // namespace allot::cli
