// Options of the benchmarks and the printing of their results.
//
// A result is one JSON object whichever way it is printed, so that text and JSON cannot disagree.
#include "bench/commands.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <memory>
#include <string>

#include "abi/env.h"
#include "base/units.h"
#include "bench/alloc.h"
#include "bench/hooks.h"
#include "bench/latency.h"
#include "bench/load.h"
#include "bench/share_commands.h"
#include "bench/text.h"

namespace allot::bench {
namespace {

void print(const nlohmann::ordered_json& result, bool json) {
  write_out(json ? result.dump() + "\n" : result_text(result));
}

// Loads the software GPU as the driver, unless this process has a driver already (inside a slice).
void use_software_gpu(const std::string& spec) {
  if (dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD) != nullptr) return;
  if (spec != "default") setenv(ALLOT_ENV_SIM_GPUS, spec.c_str(), 1);
  char self[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", self, sizeof self);
  std::string prefix(self, length > 0 ? static_cast<size_t>(length) : 0);
  for (int up = 0; up < 2; ++up) prefix.resize(std::min(prefix.rfind('/'), prefix.size()));
  for (const char* name : {"libcuda.so.1", "libnvidia-ml.so.1"}) {
    const std::string path = prefix + "/lib/allot-sim/" + name;
    // By its SONAME it is what every later dlopen of the driver gets.
    if (dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) == nullptr) {
      throw Failure(125, "--sim: " + path + " cannot be loaded; build or install it");
    }
  }
}

uint64_t size_of(const std::string& text, const char* option) {
  const Result<uint64_t> bytes = parse_size(text);
  if (!bytes || *bytes == 0) {
    throw Failure(2, fmt::format("{} {}: not a size; write it as 512M, 8G or a number of bytes",
                                 option, text));
  }
  return *bytes;
}

// CLI11's own check names the largest double there is when it refuses; this one says what to write.
CLI::Validator above_zero() {
  return CLI::Validator(
      [](std::string& text) {
        double value = 0;
        const bool good = CLI::detail::lexical_cast(text, value) && value > 0 && value < 1e12;
        return good ? std::string() : "'" + text.substr(0, 60) + "' is not a number above 0";
      },
      "");
}

struct Common {
  bool json = false;
  std::string sim;
  void prepare() const {
    if (!sim.empty()) use_software_gpu(sim);
  }
};

CLI::App* add_command(CLI::App& app, const char* name, const char* help, Common* common, int* gpu) {
  CLI::App* command = app.add_subcommand(name, help);
  command->add_flag("--json", common->json, "print the result as JSON");
  command->add_option("--gpu", *gpu, "which of the GPUs this process sees")
      ->check(number_within(0, 1024))
      ->type_name("INDEX");
  command->add_option("--sim", common->sim, "on the software GPU, such as --sim=1x80G")
      ->expected(0, 1)
      ->default_str("default")
      ->type_name("[=SPEC]");
  return command;
}

void add_load(CLI::App& app, int* exit_status) {
  struct State {
    LoadOptions options;
    Common common;
  };
  const auto state = std::make_shared<State>();
  CLI::App* command = add_command(app, "load", "keep a GPU busy and report how much work it did",
                                  &state->common, &state->options.gpu);
  command->add_option("--seconds", state->options.seconds, "how long")
      ->check(above_zero())
      ->type_name("SECONDS");
  command->add_option("--kernel-us", state->options.kernel_us, "device time of a kernel, alone")
      ->check(above_zero())
      ->type_name("MICROSECONDS");
  command->add_option("--inflight", state->options.inflight, "wait after every N-th launch")
      ->check(number_within(1, 1000000))
      ->type_name("NUMBER");
  command->add_flag("--graph", state->options.graph, "launch a graph of 20 such kernels instead");
  command
      ->add_option("--iters", state->options.iterations,
                   "spin steps of a kernel, instead of calibrating")
      ->type_name("NUMBER");
  command
      ->add_option("--solo-us", state->options.solo_us,
                   "device time of one launch alone, instead of measuring it")
      ->type_name("MICROSECONDS");
  command->footer(
      "Examples:\n"
      "  allot bench load --sim --seconds 2\n"
      "  allot run --gpu-max 25 -- allot bench load --kernel-us 200 --json");
  command->callback([state, exit_status] {
    guarded(exit_status, [&] {
      state->common.prepare();
      print(run_load(state->options), state->common.json);
    });
  });
}

void add_alloc(CLI::App& app, int* exit_status) {
  struct State {
    AllocOptions options;
    std::string step = "64M", limit, kind = "linear";
    Common common;
  };
  const auto state = std::make_shared<State>();
  CLI::App* command = add_command(app, "alloc", "take GPU memory until it is refused",
                                  &state->common, &state->options.gpu);
  command->add_option("--step", state->step, "size of one allocation")->type_name("SIZE");
  command->add_option("--limit", state->limit, "stop here even if not refused")->type_name("SIZE");
  command->add_option("--hold", state->options.hold_s, "keep it this many seconds")
      ->check(number_within(0, 1e9))
      ->type_name("SECONDS");
  command->add_option("--kind", state->kind, "linear, async, vmm, managed, array, pitch or graph")
      ->type_name("KIND");
  command->footer(
      "Examples:\n"
      "  allot bench alloc --sim --limit 1G\n"
      "  allot run --gpu-mem 4G -- allot bench alloc --kind vmm --hold 10");
  command->callback([state, exit_status] {
    guarded(exit_status, [&] {
      state->common.prepare();
      const std::optional<BlockKind> kind = block_kind(state->kind);
      if (!kind) {
        throw Failure(2, fmt::format("--kind {}: not a kind of memory; write linear, async, vmm, "
                                     "managed, array, pitch or graph",
                                     state->kind));
      }
      state->options.kind = *kind;
      state->options.step_bytes = size_of(state->step, "--step");
      if (!state->limit.empty()) state->options.limit_bytes = size_of(state->limit, "--limit");
      run_alloc(state->options,
                [&](const nlohmann::ordered_json& r) { print(r, state->common.json); });
    });
  });
}

void add_latency(CLI::App& app, int* exit_status) {
  struct State {
    LatencyOptions options;
    Common common;
  };
  const auto state = std::make_shared<State>();
  CLI::App* command = add_command(app, "latency", "time small requests on a fixed period",
                                  &state->common, &state->options.gpu);
  command->add_option("--seconds", state->options.seconds, "how long")
      ->check(above_zero())
      ->type_name("SECONDS");
  command->add_option("--kernel-us", state->options.kernel_us, "device time of a request, alone")
      ->check(above_zero())
      ->type_name("MICROSECONDS");
  command->add_option("--period-us", state->options.period_us, "time between requests")
      ->check(above_zero())
      ->type_name("MICROSECONDS");
  command
      ->add_option("--iters", state->options.iterations,
                   "spin steps of a request, instead of calibrating")
      ->type_name("NUMBER");
  command->footer(
      "Example:\n"
      "  allot bench latency --kernel-us 200 --period-us 2000 --seconds 5");
  command->callback([state, exit_status] {
    guarded(exit_status, [&] {
      state->common.prepare();
      print(run_latency(state->options), state->common.json);
    });
  });
}

void add_hooks(CLI::App& app, int* exit_status) {
  struct State {
    HooksOptions options;
    Common common;
  };
  const auto state = std::make_shared<State>();
  CLI::App* command = add_command(app, "hooks", "what the shim adds to a driver call",
                                  &state->common, &state->options.gpu);
  command->add_option("--seconds", state->options.seconds, "longest time for one operation")
      ->check(above_zero())
      ->type_name("SECONDS");
  command
      ->add_option("--live", state->options.live_blocks, "numbers of live blocks to measure with")
      ->delimiter(',')
      ->type_name("NUMBERS");
  command->footer(
      "Example:\n"
      "  allot run --sim -- allot bench hooks --seconds 1");
  command->callback([state, exit_status] {
    guarded(exit_status, [&] {
      state->common.prepare();
      print(run_hooks(state->options), state->common.json);
    });
  });
}

}  // namespace

CLI::Validator number_within(double least, double most) {
  return CLI::Validator(
      [=](std::string& text) {
        double value = 0;
        const bool good = CLI::detail::lexical_cast(text, value) && value >= least && value <= most;
        return good ? std::string()
                    : fmt::format("'{}' is not a number from {:g} to {:.12g}", text.substr(0, 60),
                                  least, most);
      },
      "");
}

void guarded(int* exit_status, const std::function<void()>& work) {
  try {
    work();
  } catch (const Failure& failure) {
    fmt::print(stderr, "allot bench: {}\n", plain_line(failure.what()));
    *exit_status = failure.exit_status();
  } catch (const std::exception& error) {
    fmt::print(stderr, "allot bench: {}\n", plain_line(error.what()));
    *exit_status = 1;
  }
}

void add_commands(CLI::App& bench_app, int* exit_status) {
  add_load(bench_app, exit_status);
  add_alloc(bench_app, exit_status);
  add_latency(bench_app, exit_status);
  add_hooks(bench_app, exit_status);
  add_share(bench_app, exit_status);
}

}  // namespace allot::bench
