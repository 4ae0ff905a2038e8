// Options of the benchmarks and the printing of their results.
//
// A result is one JSON object whichever way it is printed, so that text and JSON cannot disagree.
#include "bench/commands.h"

#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <string>

#include "base/units.h"
#include "bench/alloc.h"
#include "bench/hooks.h"
#include "bench/latency.h"
#include "bench/load.h"
#include "bench/share_commands.h"

namespace allot::bench {
namespace {

void print_text(const nlohmann::ordered_json& result, const std::string& prefix) {
  for (const auto& [key, value] : result.items()) {
    const std::string name = prefix.empty() ? key : fmt::format("{}.{}", prefix, key);
    if (value.is_structured() && !value.empty() &&
        (value.is_object() || value.front().is_structured())) {
      print_text(value, name);
    } else if (value.is_number_float()) {
      fmt::print("{:<28} {:.4g}\n", name, value.get<double>());
    } else if (value.is_array()) {
      std::string line;
      for (const auto& item : value) line += fmt::format(" {:.4g}", item.get<double>());
      fmt::print("{:<28}{}\n", name, line);
    } else {
      fmt::print("{:<28} {}\n", name, value.is_string() ? value.get<std::string>() : value.dump());
    }
  }
}

void print(const nlohmann::ordered_json& result, bool json) {
  if (json) {
    fmt::print("{}\n", result.dump());
  } else {
    print_text(result, "");
  }
  std::fflush(stdout);
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
        return good ? std::string() : text + ": not a number above 0";
      },
      "");
}

CLI::App* add_command(CLI::App& app, const char* name, const char* help, bool* json, int* gpu) {
  CLI::App* command = app.add_subcommand(name, help);
  command->add_flag("--json", *json, "print the result as JSON");
  command->add_option("--gpu", *gpu, "which of the GPUs this process sees")
      ->check(CLI::Range(0, 1024));
  return command;
}

void add_load(CLI::App& app, int* exit_status) {
  struct State {
    LoadOptions options;
    bool json = false;
  };
  const auto state = std::make_shared<State>();
  CLI::App* command = add_command(app, "load", "keep a GPU busy and say how much got done",
                                  &state->json, &state->options.gpu);
  command->add_option("--seconds", state->options.seconds, "how long")->check(above_zero());
  command->add_option("--kernel-us", state->options.kernel_us, "device time of a kernel, alone")
      ->check(above_zero());
  command->add_option("--inflight", state->options.inflight, "wait after every N-th launch")
      ->check(CLI::Range(1u, 1000000u));
  command->add_flag("--graph", state->options.graph, "launch a graph of 20 such kernels instead");
  command->add_option("--iters", state->options.iterations,
                      "spin steps of a kernel, instead of calibrating");
  command->add_option("--solo-us", state->options.solo_us,
                      "device time of one launch alone, instead of measuring it");
  command->callback([state, exit_status] {
    guarded(exit_status, [&] { print(run_load(state->options), state->json); });
  });
}

void add_alloc(CLI::App& app, int* exit_status) {
  struct State {
    AllocOptions options;
    std::string step = "64M", limit, kind = "linear";
    bool json = false;
  };
  const auto state = std::make_shared<State>();
  CLI::App* command = add_command(app, "alloc", "take GPU memory until it is refused", &state->json,
                                  &state->options.gpu);
  command->add_option("--step", state->step, "size of one allocation");
  command->add_option("--limit", state->limit, "stop here even if not refused");
  command->add_option("--hold", state->options.hold_s, "keep it this many seconds")
      ->check(CLI::Range(0.0, 1e9));
  command->add_option("--kind", state->kind, "linear, async, vmm, managed, array, pitch or graph");
  command->callback([state, exit_status] {
    guarded(exit_status, [&] {
      const std::optional<BlockKind> kind = block_kind(state->kind);
      if (!kind) {
        throw Failure(2, fmt::format("--kind {}: not a kind of memory; write linear, async, vmm, "
                                     "managed, array, pitch or graph",
                                     state->kind));
      }
      state->options.kind = *kind;
      state->options.step_bytes = size_of(state->step, "--step");
      if (!state->limit.empty()) state->options.limit_bytes = size_of(state->limit, "--limit");
      run_alloc(state->options, [&](const nlohmann::ordered_json& r) { print(r, state->json); });
    });
  });
}

void add_latency(CLI::App& app, int* exit_status) {
  struct State {
    LatencyOptions options;
    bool json = false;
  };
  const auto state = std::make_shared<State>();
  CLI::App* command = add_command(app, "latency", "time small requests on a fixed period",
                                  &state->json, &state->options.gpu);
  command->add_option("--seconds", state->options.seconds, "how long")->check(above_zero());
  command->add_option("--kernel-us", state->options.kernel_us, "device time of a request, alone")
      ->check(above_zero());
  command->add_option("--period-us", state->options.period_us, "time between requests")
      ->check(above_zero());
  command->add_option("--iters", state->options.iterations,
                      "spin steps of a request, instead of calibrating");
  command->callback([state, exit_status] {
    guarded(exit_status, [&] { print(run_latency(state->options), state->json); });
  });
}

void add_hooks(CLI::App& app, int* exit_status) {
  struct State {
    HooksOptions options;
    bool json = false;
  };
  const auto state = std::make_shared<State>();
  CLI::App* command = add_command(app, "hooks", "what the shim adds to a driver call", &state->json,
                                  &state->options.gpu);
  command->add_option("--seconds", state->options.seconds, "at most this long for one operation")
      ->check(above_zero());
  command
      ->add_option("--live", state->options.live_blocks, "numbers of live blocks to measure with")
      ->delimiter(',');
  command->callback([state, exit_status] {
    guarded(exit_status, [&] { print(run_hooks(state->options), state->json); });
  });
}

}  // namespace

void guarded(int* exit_status, const std::function<void()>& work) {
  try {
    work();
  } catch (const Failure& failure) {
    fmt::print(stderr, "allot bench: {}\n", failure.what());
    *exit_status = failure.exit_status();
  } catch (const std::exception& error) {
    fmt::print(stderr, "allot bench: {}\n", error.what());
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
