// allot cpus watch: keeps slices on their CPUs until it is stopped; logs every action.
#include <signal.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "abi/env.h"
#include "cli/cpus/cmd_cpus.h"
#include "cli/failure.h"
#include "cli/output.h"
#include "cli/slice_spec.h"
#include "cli/usage.h"
#include "cpus/watch.h"

namespace allot::cli {
namespace {

struct CpusWatchOptions {
  cpus::WatchOptions watch;
  double seconds = 0;
  bool once = false, no_rebalance = false, as_json = false;
  CLI::Option *named = nullptr, *limited = nullptr;
};

std::atomic<bool> stopped{false};
void on_signal(int) {
  stopped.store(true);
}

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void log(const cpus::WatchAction& a, double since, bool dry_run, bool as_json) {
  if (as_json) {
    print(nlohmann::json{{"s", since},
                         {"slice", a.slice},
                         {"kind", action_name(a.kind)},
                         {"what", a.what},
                         {"why", a.why},
                         {"done", a.done},
                         {"error", a.error}}
              .dump() +
          "\n");
  } else {
    bool report = a.kind == cpus::WatchAction::Kind::kReport;
    std::string outcome = !a.error.empty()     ? " FAILED: " + a.error
                          : dry_run && !report ? " (dry run: not done)"
                                               : "";
    print(fmt::format("{:8.1f} s  {}: {}: {}: {}{}\n", since, harmless(a.slice),
                      action_name(a.kind), a.what, a.why, outcome));
  }
  std::fflush(stdout);
}

// "" means all slices only where no name was given.
void require_slice(const CpusWatchOptions& options, const cpus::Watcher& watcher) {
  if (!watcher.problem().empty()) refuse("watch: {}", watcher.problem());
  if (options.watch.slice.empty() || watcher.slices() > 0) return;
  std::string names;
  for (const std::string& name : watcher.names()) names += (names.empty() ? "" : ", ") + name;
  refuse("watch: no slice of CPUs is called '{}'; there is {}", shown(options.watch.slice),
         names.empty() ? "none" : shown(names));
}

void watch(CpusWatchOptions options) {
  if (options.named->count() > 0) check_name("watch", options.watch.slice);
  if (options.watch.folder.empty())
    options.watch.folder = cpus::lease_folder(std::getenv(ALLOT_ENV_DIR));
  options.watch.rebalance = !options.no_rebalance;
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  cpus::Watcher watcher(options.watch);
  double from = now_s();
  bool first = true;
  while (!stopped.load()) {
    double now = now_s();
    for (const cpus::WatchAction& a : watcher.look(now))
      log(a, now - from, options.watch.dry_run, options.as_json);
    if (first) require_slice(options, watcher);
    if (first && !options.as_json)
      fmt::print(stderr, "allot: watching {} slice{} in {}\n", watcher.slices(),
                 watcher.slices() == 1 ? "" : "s", options.watch.folder);
    first = false;
    if (!options.watch.slice.empty() && watcher.slices() == 0 && watcher.problem().empty()) {
      if (!options.as_json) fmt::print(stderr, "allot: '{}' has ended\n", options.watch.slice);
      break;
    }
    if (options.once || (options.limited->count() > 0 && now - from >= options.seconds)) break;
    // A write to a watched file ends the wait at once. Files without such events are polled this
    // often, five times within the second that a repair may take.
    watcher.wait(200);
  }
}

}  // namespace

void add_cpus_watch(CLI::App& cpus, int*) {
  auto options = std::make_shared<CpusWatchOptions>();
  CLI::App* app = cpus.add_subcommand("watch",
                                      "restore slices that hotplug, daemons or threads changed; "
                                      "spread pinned threads that pile up; "
                                      "name strangers on exclusive CPUs");
  options->named = app->add_option("slice", options->watch.slice, "only this slice, until it ends")
                       ->type_name("NAME");
  app->add_flag("--dry-run", options->watch.dry_run, "print what would be done and change nothing");
  app->add_flag("--no-rebalance", options->no_rebalance, "restore only; do not spread threads");
  app->add_flag("--move-strangers", options->watch.move_strangers,
                "keep processes of others off the CPUs of exclusive slices, until watch ends");
  app->add_flag("--once", options->once, "check once and exit");
  options->limited = app->add_option("--for", options->seconds, "exit after this many seconds")
                         ->check(seconds_up_to(1e9))
                         ->type_name("SECONDS");
  app->add_flag("--json", options->as_json, "one JSON object per line");
  app->footer(
      "Examples:\n"
      "  allot cpus watch\n"
      "  allot cpus watch alice --dry-run --once");
  app->callback([options] { watch(*options); });
}

}  // namespace allot::cli
