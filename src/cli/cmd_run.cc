// allot run: makes a slice, starts a program in it, waits until it ends, removes the slice.
//
// It fails closed by default: a user who sets a limit must not get a program without one. So
// everything that can be known beforehand (the driver, the GPUs, our libraries, whether a preload
// reaches the program) is checked before anything is made. Objects own what is made, and remove it.
#include <sys/types.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include "abi/env.h"
#include "cli/commands.h"
#include "cli/failure.h"
#include "cli/gpus/gpu_inventory.h"
#include "cli/launch/admission.h"
#include "cli/launch/bounds.h"
#include "cli/launch/child_env.h"
#include "cli/launch/evict_watcher.h"
#include "cli/launch/program_check.h"
#include "cli/launch/run_cpus.h"
#include "cli/launch/run_wait.h"
#include "cli/launch/sim_sizes.h"
#include "cli/launch/slice_file.h"
#include "cli/launch/small_limit.h"
#include "cli/launch/supervise.h"
#include "cli/launch/unit.h"
#include "cli/log/deeds.h"
#include "cli/output.h"
#include "cli/region/region_view.h"
#include "cli/slice_spec.h"
#include "cli/usage.h"

extern char** environ;

namespace allot::cli {
namespace {

struct RunOptions {
  std::optional<std::string> gpu, name, share, max, latency, swap;
  std::optional<std::string> priority;
  std::string sim, fail = "closed", level = "auto";
  std::vector<std::string> gpu_mem;
  bool exec = false;
  bool overcommit = false;
  bool cgroup = false;
  bool unit = false;
  WaitOptions wait;
  RunCpus cpus;
};

SliceSpec read_spec(const RunOptions& options) {
  SliceSpec spec;
  if (options.gpu) spec.gpus = parse_gpu_list("--gpu", *options.gpu);
  for (const std::string& text : options.gpu_mem) {
    for (MemoryLimit& limit : parse_gpu_mem("--gpu-mem", text))
      spec.memory.push_back(std::move(limit));
  }
  if (options.share) spec.share_permille = parse_share("--gpu-share", *options.share);
  if (options.max) spec.max_permille = parse_share("--gpu-max", *options.max);
  if (spec.max_permille != 0 && spec.max_permille < spec.share_permille) {
    wrong_usage("--gpu-max: {} is below the share of {}; write a ceiling of at least the share",
                *options.max, *options.share);
  }
  if (options.latency) spec.latency_us = parse_latency("--gpu-latency", *options.latency);
  if (options.priority) spec.priority = parse_priority("--priority", *options.priority);
  spec.level = parse_level("--level", options.level);
  spec.fail_closed = parse_fail("--fail", options.fail);
  if (options.swap) {
    spec.swap_fast = parse_swap("--swap", *options.swap);
  } else if (const char* usual = std::getenv(ALLOT_ENV_SWAP); usual != nullptr && *usual != '\0') {
    spec.swap_fast = parse_swap(ALLOT_ENV_SWAP, usual);
  }
  spec.overcommit = options.overcommit;
  spec.claims_cgroup = options.cgroup;
  spec.free_memory = options.wait.asked();
  return spec;
}

void refuse_inside_slice() {
  const char* outer = std::getenv(ALLOT_ENV_SLICE);
  if (outer == nullptr || access(outer, F_OK) != 0) return;
  refuse("run: this shell is already inside a slice ({}); leave it, or change it with 'allot set'",
         outer);
}

void note_wait(const RunOptions& options, const SliceSpec& spec) {
  if (!spec.free_memory || !spec.memory.empty() || spec.share_permille != 0) return;
  note(fmt::format("{}: there is nothing to wait for without --gpu-mem or --gpu-share",
                   options.wait.wait ? "--wait" : "--evict-idle"));
}

void note_observe(const SliceSpec& spec) {
  if (spec.level != ALLOT_LEVEL_OBSERVE || !spec.limits_time()) return;
  note("with --level observe GPU time is measured, not held: the limits are only recorded");
}

// False when the program must start without our libraries (only with --fail open).
bool check_preload(const std::string& file, bool closed) {
  const char* why = nullptr;
  switch (preload_effect(file)) {
    case Preload::kWorks:
    case Preload::kStatic:
      return true;
    case Preload::kSetId:
      why = "gains privileges when it starts, so the loader drops LD_PRELOAD";
      break;
    case Preload::kOtherLoader:
      why = "uses the musl C library, which cannot load allot's libraries";
      break;
    case Preload::kOtherMachine:
      why = "is built for another processor or word size";
      break;
  }
  if (closed) {
    refuse("{}: {}: it cannot be held to a slice; start the real program, or add --fail open", file,
           why);
  }
  note(fmt::format("{}: {}: it runs without limits", file, why));
  return false;
}

DriverFiles driver_files(const RunOptions& options, bool closed) {
  if (!options.sim.empty()) {
    const DriverFiles sim = use_sim(options.sim);
    refuse_other_sizes(sim, options.sim != "default");
    return sim;
  }
  DriverFiles driver = find_driver();
  if (closed && driver.cuda.empty()) {
    refuse(
        "libcuda.so.1 was not found{}; install the NVIDIA driver, or use the software GPU with "
        "--sim",
        driver.nvml.empty() ? "" : fmt::format(" ({} is there)", driver.nvml));
  }
  return driver;
}

Inventory gpus_of(const DriverFiles& driver, bool closed) {
  if (closed) return need_gpus(driver);
  Inventory inventory = ask_driver(driver);
  if (!inventory.problem.empty()) note(inventory.problem + "; no GPU is limited");
  return inventory;
}

// What CUDA_VISIBLE_DEVICES says in a slice of chosen GPUs: numbers, which many frameworks insist
// on. Inside the slice they count its GPUs; a program that our libraries cannot reach needs the
// UUIDs.
std::string visible_gpus(const std::vector<ChosenGpu>& chosen, bool numbered) {
  std::string text;
  for (size_t i = 0; i < chosen.size(); ++i) {
    text += (i == 0 ? "" : ",") + (numbered ? std::to_string(i) : chosen[i].gpu->uuid_text);
  }
  return text;
}

int start(const RunOptions& options, const Program& program, const SignalGuard& signals,
          StartHook* hook) {
  if (options.exec) become(program, signals, hook);
  return supervise(program, signals, hook);
}

// Runs in a slice of GPUs, which the launcher watches.
int start_watched(const RunOptions& options, const Program& program, const SignalGuard& signals,
                  StartHook* hook, const std::string& name) {
  if (options.exec) become(program, signals, hook);
  const char* wanted = std::getenv(ALLOT_ENV_SIGNALS);
  LifeWatch watch(name, program.inherits, wanted != nullptr && std::string_view(wanted) == "1");
  return supervise(program, signals, hook, [&](int number) { return watch.take_signal(number); });
}

// "python train.py; GPU 0: 8 GiB; share 30%, ceiling 50%".
std::string started_text(const std::vector<std::string>& words, const SliceSpec& spec,
                         const std::vector<ChosenGpu>& chosen) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "started: " : " ") + word;
  for (const ChosenGpu& one : chosen)
    text += fmt::format("; GPU {}: {}", one.gpu->index,
                        one.limit_bytes == ALLOT_UNLIMITED ? "all" : size_text(one.limit_bytes));
  if (spec.share_permille != 0) text += "; share " + percent_text(spec.share_permille);
  if (spec.max_permille != 0) text += "; ceiling " + percent_text(spec.max_permille);
  return text;
}

void log_end(const SliceFile& file, const std::string& name, int status,
             std::chrono::steady_clock::duration took) {
  Fields fields;
  const std::string totals = file.totals(&fields);
  fields.emplace_back("ALLOT_STATUS", std::to_string(status));
  const double seconds = std::chrono::duration<double>(took).count();
  log_deed({"end", name, DeedResult::kDone,
            fmt::format("ended with status {} after {:.1f} s: {}", status, seconds, totals),
            fields});
}

// What another command may have to know: that somebody got no slice. Mistakes at the keyboard are
// not logged.
void log_refusal(const RunOptions& options, const std::vector<std::string>& words,
                 const Failure& failure) {
  if (failure.exit_status() != kExitRefused && failure.exit_status() != kExitTimedOut) return;
  const std::string program = words.empty() ? "" : words[0];
  log_deed({"run",
            options.name.value_or(default_name(program, getpid())),
            DeedResult::kRefused,
            failure.line(),
            {}});
}

int run_on_cpus(const RunOptions& options, Program program) {
  for (char** word = environ; *word != nullptr; ++word) program.env.emplace_back(*word);
  const SignalGuard signals;
  const std::string name = options.name.value_or(default_name(program.argv[0], getpid()));
  const std::unique_ptr<StartHook> cpus = options.cpus.place(name, -1, 0);
  log_deed(
      {"run", name, DeedResult::kDone, started_text(program.argv, {}, {}) + "; CPUs alone", {}});
  const auto begin = std::chrono::steady_clock::now();
  const int status = start(options, program, signals, cpus.get());
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  log_deed({"end",
            name,
            DeedResult::kDone,
            fmt::format("ended with status {} after {:.1f} s", status, seconds),
            {{"ALLOT_STATUS", std::to_string(status)}}});
  return status;
}

int run(const RunOptions& options, const std::vector<std::string>& words, bool only_cpus) {
  SliceSpec spec = read_spec(options);
  if (options.name) check_name("--name", *options.name);
  if (words.empty()) {
    wrong_usage(
        "run: no program; write it after --, such as: allot run --gpu-mem 8G -- python train.py");
  }
  if (options.unit) become_unit(options.name.value_or(default_name(words[0], getpid())));
  Program program;
  program.argv = words;
  if (only_cpus) {
    program.file = resolve_program(words[0], std::getenv("PATH"));
    return run_on_cpus(options, program);
  }
  refuse_inside_slice();
  const Bounds bounds;
  bounds.complete(&spec, options.priority.has_value());
  note_observe(spec);
  note_wait(options, spec);
  program.file = resolve_program(words[0], std::getenv("PATH"));
  const bool preload = check_preload(program.file, spec.fail_closed);

  SliceEnvironment slice;
  slice.shim = need_shim();
  slice.simulated = !options.sim.empty();
  slice.fail_closed = spec.fail_closed;
  slice.preload = preload;
  const DriverFiles driver = driver_files(options, spec.fail_closed);
  slice.sim = driver;
  Inventory inventory = gpus_of(driver, spec.fail_closed);
  std::vector<ChosenGpu> chosen = choose_gpus(inventory, spec);
  bounds.complete(&chosen, !spec.memory.empty());
  note_small_limits(chosen);
  if (!spec.gpus.empty()) slice.visible_gpus = visible_gpus(chosen, preload);

  const SignalGuard signals;
  const std::string name = options.name.value_or(default_name(words[0], getpid()));
  // The slice first, because it may have to wait; then the CPUs, which others can use meanwhile.
  const std::unique_ptr<SliceFile> file =
      make_slice(name, spec, bounds, &inventory, chosen, driver, options.wait, note);
  const bool near_gpu = !spec.gpus.empty() && !inventory.software;
  const std::unique_ptr<StartHook> cpus = options.cpus.place(
      name, near_gpu ? static_cast<int>(chosen.front().gpu->index) : -1, inventory.gpus.size());
  slice.slice_path = file->path();
  program.inherits = file->members_fd();
  program.env = slice_environment(slice, environ);
  log_deed({"run", name, DeedResult::kDone, started_text(words, spec, chosen), {}});
  const auto begin = std::chrono::steady_clock::now();
  const int status = start_watched(options, program, signals, cpus.get(), name);
  log_end(*file, name, status, std::chrono::steady_clock::now() - begin);
  return status;
}

void add_gpu_flags(CLI::App& run, RunOptions* options) {
  constexpr const char* kMemory = "GPUs and memory";
  run.add_option("--gpu", options->gpu,
                 "only these GPUs: indexes or UUIDs (or the beginning of one), joined by commas")
      ->type_name("LIST")
      ->group(kMemory);
  run.add_option(
         "--gpu-mem", options->gpu_mem,
         "memory limit for every GPU, such as 8G, or GPU:SIZE for one; joined by commas, or "
         "given again")
      ->type_name("SIZE")
      ->expected(1)
      ->take_all()
      ->group(kMemory);
  run.add_option("--swap", options->swap,
                 "how 'allot evict' moves its memory: driver moves everything, slowly; fast moves "
                 "only blocks of more than 1 MiB, at PCIe speed (default: ALLOT_SWAP, else driver)")
      ->type_name("driver|fast")
      ->group(kMemory);
  run.add_option("--sim", options->sim, "the software GPU, such as --sim=2x80G or --sim=80G,24G")
      ->type_name("[=SPEC]")
      ->group(kMemory);
}

void add_time_flags(CLI::App& run, RunOptions* options) {
  constexpr const char* kTime = "GPU time";
  run.add_option("--gpu-share", options->share,
                 "guaranteed share of GPU time while it has work; idle time is lent to others")
      ->type_name("PERCENT")
      ->group(kTime);
  run.add_option("--gpu-max", options->max, "ceiling of GPU time, even on an otherwise idle GPU")
      ->type_name("PERCENT")
      ->group(kTime);
  run.add_option("--gpu-latency", options->latency,
                 "longest pause, in ms, of a program that waits for its GPU work while other "
                 "slices run; short pauses cost throughput (default: 16 beside one other slice)")
      ->type_name("MS")
      ->group(kTime);
  run.add_option("--priority", options->priority, "high runs first, low last (default: normal)")
      ->type_name("high|normal|low")
      ->group(kTime);
  run.add_option("--level", options->level,
                 "how GPU time is held: channel, launch, or only observe (default: auto)")
      ->type_name("LEVEL")
      ->group(kTime);
  run.add_flag("--overcommit", options->overcommit,
               "allow shares that sum to more than 100 % of a GPU; all shrink in proportion")
      ->group(kTime);
}

void add_wait_flags(CLI::App& run, WaitOptions* options) {
  constexpr const char* kWaiting = "Waiting for room";
  CLI::Option* wait =
      run.add_flag("--wait", options->wait,
                   "wait until the memory is free and the share unreserved on the GPU")
          ->group(kWaiting);
  run.add_option("--wait-timeout", options->timeout_seconds,
                 "stop waiting after this long, with status 124 (default: never)")
      ->check(seconds_up_to(1e9))
      ->type_name("SECONDS")
      ->group(kWaiting)
      ->needs(wait);
  run.add_option("--evict-idle", options->evict_idle_seconds,
                 "make room by evicting your low-priority slices that have been idle this long; "
                 "they return when they have work")
      ->check(seconds_up_to(1e9))
      ->type_name("SECONDS")
      ->group(kWaiting);
}

}  // namespace

void add_run(CLI::App& app, const std::vector<std::string>& program, int* exit_status) {
  CLI::App* sub = app.add_subcommand("run", "run a program in a slice of GPUs, CPUs or both");
  const auto options = std::make_shared<RunOptions>();
  add_gpu_flags(*sub, options.get());
  add_time_flags(*sub, options.get());
  options->cpus.add_flags(*sub);
  add_wait_flags(*sub, &options->wait);
  sub->add_option("--name", options->name, "the slice's name (default: PROGRAM-PID)")
      ->type_name("NAME");
  sub->add_flag("--exec", options->exec,
                "replace allot by the program (exec); a later allot command removes the slice");
  sub->add_flag("--cgroup", options->cgroup,
                "all your processes in this cgroup (a systemd unit, a job) belong to the slice, "
                "whatever their environment");
  sub->add_flag("--unit", options->unit,
                "run in a systemd scope of its own, allot-NAME, with --cgroup");
  sub->add_option("--fail", options->fail,
                  "if a limit cannot be enforced: closed refuses, open continues (default: "
                  "closed)")
      ->type_name("open|closed");
  sub->footer(
      "Examples:\n"
      "  allot run --gpu-mem 8G -- python train.py\n"
      "  allot run --gpu-mem 8G --gpu-share 30% -- python train.py\n"
      "  allot run --gpu 0,1 --gpu-mem 8G --gpu-mem 1:16G --name alice -- ./serve\n"
      "  allot run --gpu-share 20 --gpu-max 50 --priority high -- ./serve\n"
      "  allot run --gpu-mem 40G --wait --evict-idle 300 -- python train.py\n"
      "  allot run --gpu 0 --gpu-mem 8G --cpus 8 -- python train.py\n"
      "  allot run --cpus 0-3 --exclusive -- make          CPUs only\n"
      "  allot run --sim=2x80G --gpu-mem 2G -- ./a.out     no GPU needed\n"
      "\n"
      "Exit status: the program's own, or 128 + the signal that killed it; 125 allot refused "
      "before "
      "the program started, 126 the program cannot be executed, 127 it was not found, 124 no room "
      "within --wait-timeout, 2 wrong usage.");
  sub->callback([options, &program, exit_status, sub] {
    try {
      *exit_status = run(*options, program, options->cpus.only(*sub));
    } catch (const Failure& failure) {
      log_refusal(*options, program, failure);
      throw;
    }
  });
}

}  // namespace allot::cli
