// Options only; share.h and share_worker.h do the work.
#include "bench/share_commands.h"

#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <string>

#include "bench/commands.h"
#include "bench/driver_api.h"
#include "bench/share.h"
#include "bench/share_worker.h"
#include "bench/text.h"

namespace allot::bench {
namespace {

void add_worker(CLI::App& app, int* exit_status) {
  const auto options = std::make_shared<WorkerOptions>();
  CLI::App* command = app.add_subcommand("share-worker", "a process of 'share'")->group("");
  command->add_option("--load", options->load)->required();
  command->add_option("--gpu", options->gpu);
  command->add_flag("--calibrate", options->calibrate);
  command->add_option("--iters-per-us", options->iters_per_us);
  command->callback(
      [options, exit_status] { guarded(exit_status, [&] { run_share_worker(*options); }); });
}

}  // namespace

void add_share(CLI::App& app, int* exit_status) {
  struct State {
    ShareOptions options;
    bool json = false, plain = false, judge = false;
  };
  const auto state = std::make_shared<State>();
  ShareOptions& options = state->options;
  CLI::App* command =
      app.add_subcommand("share", "run slices side by side and report what each got");
  command
      ->add_option("--slice", options.slices,
                   "one slice: LOAD[:SHARE] and KEY=VALUE joined by commas: share, max, priority, "
                   "level, latency-ms, kernel-us, inflight, period-us, host-us, busy-ms, idle-ms, "
                   "busy, from; again for each slice")
      ->type_name("SLICE")
      ->expected(1)
      ->take_all()
      ->required();
  command
      ->add_option(
          "--phase", options.phases,
          "then change share or max, one group per slice, separated by '/', and measure again")
      ->type_name("CHANGES")
      ->expected(1)
      ->take_all();
  command->add_option("--seconds", options.seconds, "how long each phase is measured")
      ->type_name("SECONDS")
      ->check(number_within(0.1, 100000));
  command->add_option("--warm", options.warm_s, "warm-up before the first phase, in seconds")
      ->type_name("SECONDS")
      ->check(number_within(0, 1000));
  command->add_option("--settle", options.settle_s, "seconds between a change and its phase")
      ->type_name("SECONDS")
      ->check(number_within(0, 1000));
  command->add_option("--level", options.level, "auto, channel, launch or observe, for all slices")
      ->type_name("LEVEL");
  command->add_option("--gpu", options.gpu, "which of the GPUs this process sees")
      ->type_name("INDEX")
      ->check(number_within(0, 1024));
  command->add_option("--sim", options.sim, "on the software GPU, such as --sim=1x80G")
      ->type_name("[=SPEC]")
      ->expected(0, 1)
      ->default_str("default");
  command->add_flag("--no-allot", state->plain, "without slices: the driver's own timeslices");
  command->add_flag("--native", options.native,
                    "measure the same loads without slices too, first, and print both");
  command->add_option("--points", options.points, "how many points a promise may be missed by")
      ->type_name("POINTS")
      ->check(number_within(0, 100));
  command->add_flag("--judge", state->judge, "exit with 1 if a promise was not kept");
  command
      ->add_option("--calibration", options.calibration,
                   "a file that keeps what the loads do alone, for the next call")
      ->type_name("FILE");
  command->add_flag("--bins", options.bins, "with --json: the work of each 10 ms too");
  command->add_flag("--json", state->json, "print the result as JSON");
  command->footer(
      "Loads: full, graph, long, step, wait, mixed, launch-bound, bursty, request, idle; "
      "bench/README.md says\n"
      "what each does. Shares and ceilings are percentages of GPU time. What a load does alone on "
      "the GPU is\n"
      "measured first, without a slice.\n"
      "\n"
      "Examples:\n"
      "  allot bench share --slice full:30 --slice graph:70 --seconds 10\n"
      "  allot bench share --native --judge --slice step:30 --slice wait:20,host-us=800 --slice "
      "full:50\n"
      "  allot bench share --slice long,max=25 --phase max=50 --phase max=75 --seconds 5\n"
      "  allot bench share --slice request,priority=high --slice full,priority=low\n"
      "  allot bench share --slice step --slice step --no-allot");
  command->callback([state, exit_status] {
    guarded(exit_status, [&] {
      state->options.allot = !state->plain;
      const nlohmann::ordered_json result = run_share(state->options);
      write_out(state->json ? result.dump() + "\n" : share_text(result));
      for (const nlohmann::ordered_json& phase : result["phases"]) {
        if (state->judge && !phase["promises_kept"]) *exit_status = 1;
      }
    });
  });
  add_worker(app, exit_status);
}

}  // namespace allot::bench
